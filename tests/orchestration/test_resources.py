"""The Spark resource: one session a run, started when it is first needed, joined where there is one."""

import dagster as dg
from pyspark.sql import SparkSession

from lakehouse_pipeline.orchestration.resources import SparkResource


def test_a_run_joins_the_session_that_is_there(spark: SparkSession) -> None:
    """All assets of a run use one session; a run that did not start it leaves it running."""
    seen: list[str] = []

    @dg.asset
    def first(spark: SparkResource) -> None:
        seen.append(spark.lazy().get().sparkContext.applicationId)

    @dg.asset(deps=[first])
    def second(spark: SparkResource) -> None:
        seen.append(spark.lazy().get().sparkContext.applicationId)

    result = dg.materialize([first, second], resources={"spark": SparkResource(engine="local[1]")})
    assert result.success
    assert seen == [spark.sparkContext.applicationId] * 2
    assert spark.range(2).count() == 2


def test_a_run_that_needs_no_session_starts_none() -> None:
    """Tearing down what was never used does nothing."""

    @dg.asset
    def idle(spark: SparkResource) -> None:
        assert spark.lazy() is spark.lazy()

    assert dg.materialize([idle], resources={"spark": SparkResource(engine="no such engine")}).success
