"""What each engine can do, as far as it makes a difference here. One table; docs/engines.md says it in prose.

Every entry was measured on the version that is named, and has a test. What an engine lacks is done another way where
there is one, and refused by name where there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from pyspark.sql import SparkSession

from lakehouse_pipeline.config.engine import EngineKind, kind_of_engine
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import ConfigurationError

KIND = "spark.lakehouse.engine"  # the session's setting that tells which engine it is on


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do.

    Attributes:
        kind: the engine.
        connect: it is spoken to by Spark Connect: plans are resolved when they run, and there is no SparkContext.
        local_tasks: tasks run on this machine and see the driver's files.
        ships: our package has to be sent to the tasks, and the versions there looked at.
        places_exactly: `repartitionById` is there.
        readers: formats that `reader: spark` may use.
        widens: `reader: spark` takes stored columns of narrower types than are wanted.
        differs: what transforms do in silence that they do not do on Apache Spark, and nothing here can catch: a name
            that a spec may list under `accepts`, and the sentence; refused where it does not.
    """

    kind: EngineKind
    connect: bool
    local_tasks: bool
    ships: bool
    places_exactly: bool = True
    readers: frozenset[str] = frozenset({"csv", "jsonl", "parquet", "orc"})
    widens: bool = True
    differs: Mapping[str, str] = field(default_factory=dict)


ENGINES: Mapping[str, Capabilities] = {
    "local": Capabilities("local", connect=False, local_tasks=True, ships=False),
    "cluster": Capabilities("cluster", connect=False, local_tasks=False, ships=True),
    "connect": Capabilities("connect", connect=True, local_tasks=False, ships=True),
    # pysail 0.7.2: `repartitionById`, ORC and FAILFAST are missing.
    "sail": Capabilities(
        "sail",
        connect=True,
        local_tasks=True,
        ships=False,
        places_exactly=False,
        readers=frozenset({"parquet"}),
        widens=False,
        differs={"integer_overflow": "integers that overflow in a transform wrap around, where Apache Spark fails"},
    ),
}


_known: WeakKeyDictionary[SparkSession, Capabilities] = WeakKeyDictionary()  # asking a session costs a call to the JVM


def engine_kind(engine: str) -> EngineKind:
    """Tell the kind of engine from its address in lakehouse.yaml.

    Raises:
        ConfigurationError: it is none that is known.
    """
    if kind := kind_of_engine(engine):
        return kind
    # The text is not shown: a mistyped address may hold a token.
    raise ConfigurationError("engine: is no engine; write local[*], spark://…, yarn, k8s://…, sc://… or sail")


def check_transform(session: SparkSession, spec: TableSpec) -> None:
    """Refuse a transform on an engine that may silently give other rows than Apache Spark, unless the spec accepts it.

    Raises:
        ConfigurationError: names each difference, and the key that accepts it.
    """
    check_transform_on(capabilities(session), spec)


def check_transform_on(known: Capabilities, spec: TableSpec) -> None:
    """Do the same for an engine of which no session has started; see `check_transform`."""
    if spec.transform is None:
        return
    unasked = {name: said for name, said in known.differs.items() if name not in spec.accepts}
    if unasked:
        raise ConfigurationError(
            f"{spec.file}: transform: on {known.kind}, {'; '.join(unasked.values())}. If the transform widens or "
            f"checks them, write accepts: [{', '.join([*spec.accepts, *unasked])}]; or take another engine"
        )


def capabilities(session: SparkSession) -> Capabilities:
    """Give what the engine behind a session can do; one that was not opened here is taken for Apache Spark."""
    if session not in _known:
        kind = session.conf.get(KIND, "")
        if not kind:  # it may still be told
            return ENGINES["local"]
        _known[session] = ENGINES[kind]
    return _known[session]
