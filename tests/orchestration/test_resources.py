"""The Spark resource: one session a run, started when it is first needed, joined where there is one."""

import dagster as dg
from pyspark.sql import SparkSession

from lakehouse_pipeline.orchestration.resources import OneSession, spark_resource


def test_a_run_joins_the_session_that_is_there(spark: SparkSession) -> None:
    """All assets of a run use one session; a run that did not start it leaves it running."""
    seen: list[str] = []

    @dg.asset
    def first(spark: dg.ResourceParam[OneSession]) -> None:
        seen.append(spark.lazy().get().sparkContext.applicationId)

    @dg.asset(deps=[first])
    def second(spark: dg.ResourceParam[OneSession]) -> None:
        seen.append(spark.lazy().get().sparkContext.applicationId)

    result = dg.materialize([first, second], resources={"spark": spark_resource("local[1]")})
    assert result.success
    assert seen == [spark.sparkContext.applicationId] * 2
    assert spark.range(2).count() == 2


def test_a_run_that_needs_no_session_starts_none() -> None:
    """Tearing down what was never used does nothing."""

    @dg.asset
    def idle(spark: dg.ResourceParam[OneSession]) -> None:
        assert spark.lazy() is spark.lazy()

    assert dg.materialize([idle], resources={"spark": spark_resource("no such engine")}).success


def test_the_engines_address_is_not_shown() -> None:
    """It may hold a token: Dagster's page and its records know nothing of it."""
    seen: list[str] = []

    @dg.asset
    def idle(context: dg.AssetExecutionContext, spark: dg.ResourceParam[OneSession]) -> None:
        assert spark.lazy() is spark.lazy()
        seen.append(str(context.run.run_config))

    with dg.instance_for_test() as instance:
        resources = {"spark": spark_resource("sc://host/;token=hidden")}
        result = dg.materialize([idle], resources=resources, instance=instance)
        seen += [str(event) for event in instance.all_logs(result.run_id)]
    assert len(seen) > 5
    assert "hidden" not in "".join(seen)
