"""A backfill before it begins: what its hours are taken to be, what S3 will say to them, what to set.

`forecast` looks, `plan_backfill` decides; nothing is written.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from lakehouse_pipeline.backfill.figures import LEAST_S, NOTHING_SAID, Asked, Figure, figures
from lakehouse_pipeline.backfill.known_hours import KnownHours, look_at
from lakehouse_pipeline.backfill.run_plan import RunPlan, engine_print, inputs_print, spec_print, store_print
from lakehouse_pipeline.backfill.staging_choice import price_book, times_read
from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.config.table import MAX_FILE_SIZE, MIN_FILE_SIZE, TableSpec
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourRange, HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.object_store.file_io import S3_SCHEMES, LakehouseFileIO
from lakehouse_pipeline.object_store.settings import read_settings
from lakehouse_pipeline.planning.advice import MOST_503_SHARE, MOST_IN_FLIGHT, Advice, Load, advise, roomy_file_bytes
from lakehouse_pipeline.planning.clients import OURS
from lakehouse_pipeline.planning.layouts import BASE_2, BY_HOUR
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.planning.transfer import NoWayError, Origin, Question, TransferPlan, plan_transfer
from lakehouse_pipeline.planning.units import show_bytes
from lakehouse_pipeline.sources.listing import SourceObject

UNLIMITED = Scaling(write_rate=1e12, read_rate=1e12, detect_s=None)  # a disk says no 503s
ON_DISK = ("file:", "/")

_LOCAL = re.compile(r"local(\[.*\])?|sail")
_DATA_PATH = "write.data.path"
_BY_HASH = "write.object-storage.enabled"


@dataclass(frozen=True)
class Forecast:
    """A backfill, looked at.

    Attributes:
        table: the spec's name.
        hours: that were asked for.
        there: of them, those that a run skips, as they are in the table and unchanged.
        sealed: of them, those that only wait for their commit.
        missing: of the others, those without any object.
        missing_fail: whether these fail; else they are empty.
        source_bytes: of all objects that are read.
        bytes_: of an hour's files in the table.
        files: of an hour.
        etl_s: seconds of an hour.
        load: what was simulated.
        on_s3: whether there is a store that throttles.
        advice: what to set, beside what else.
        run: that, as a run takes it.
        ways: how the raw bytes get to the compute; None where the store does not tell, or nothing was looked at.
        notes: what somebody should know who relies on it.
    """

    table: str
    hours: HourRange
    there: int
    sealed: int
    missing: tuple[HourWindow, ...]
    missing_fail: bool
    source_bytes: int
    bytes_: Figure
    files: Figure
    etl_s: Figure
    load: Load
    on_s3: bool
    advice: Advice
    run: RunPlan
    ways: TransferPlan | None = None
    notes: tuple[str, ...] = ()


class NothingToRunError(ConfigurationError):
    """There is nothing to plan: every hour is there, or has no objects."""


def forecast(
    lakehouse: Lakehouse,
    spec: TableSpec,
    warehouse: Warehouse | None,
    hours: HourRange,
    *,
    asked: Asked = NOTHING_SAID,
    scaling: Scaling | None = None,
) -> Forecast:
    """Look at a backfill.

    Args:
        lakehouse: with the engine and its settings.
        spec: of the table.
        warehouse: where it is; None looks at nothing, and everything has to be said.
        hours: to run.
        asked: what is known better.
        scaling: of S3; AWS's published limits unless given.

    Raises:
        NothingToRunError: no hour is to run.
        ConfigurationError: hours lie outside of the table's, or figures are missing.
        TransientError: the store did not answer.
    """
    if hours.first < spec.start or (spec.end and hours.last >= spec.end):
        raise ConfigurationError(f"{hours} reaches beyond {spec.name}'s start and end")
    if warehouse is None:
        if not asked.all:
            raise ConfigurationError("without a look at the sources, --bytes, --files and --seconds have to be given")
        return plan_backfill(lakehouse, spec, lakehouse.catalog, KnownHours(), hours, asked=asked, scaling=scaling)
    known = look_at(spec, warehouse, hours, force=asked.force)
    catalog = warehouse.catalog.properties  # with what .pyiceberg.yaml adds
    told = plan_backfill(lakehouse, spec, catalog, known, hours, asked=asked, scaling=scaling)
    objects = list(_by_url(known, hours).values())
    ways, why = _ways(spec, warehouse.files, objects, _location(spec, catalog, known.table), told)
    return replace(told, ways=ways, notes=(*told.notes, *([why] if why else [])))


def plan_backfill(
    lakehouse: Lakehouse,
    spec: TableSpec,
    catalog: Mapping[str, str],
    known: KnownHours,
    hours: HourRange,
    *,
    asked: Asked,
    scaling: Scaling | None,
) -> Forecast:
    """Decide what to set for a backfill. Pure; the arguments are those of `forecast`, and what it has seen."""
    left = [hour for hour in hours if hour not in known.there and hour not in known.sealed]
    todo = [hour for hour in left if not known.inputs or known.inputs[hour].source]
    missing = tuple(hour for hour in left if known.inputs and not known.inputs[hour].source)
    if not todo:
        raise NothingToRunError(
            f"there is nothing to run of {hours}: {len(known.there)} are in the table, and unchanged, "
            f"{len(known.sealed)} wait for their commit, {len(missing)} have no object"
        )
    sizes, files, etl_s = figures(spec, known, todo, asked)
    location, store = _location(spec, catalog, known.table), read_settings(catalog)
    on_s3 = not location.startswith(ON_DISK)
    model = (scaling or Scaling()) if on_s3 else UNLIMITED
    load = Load(
        hours=len(todo),
        files=max(1, round(files.value)),
        bytes_=max(1.0, sizes.value),
        etl_s=max(etl_s.value, LEAST_S),
        layout=BASE_2 if _is_hashed(spec, known.table) else BY_HOUR,
        multipart_from=store.multipart_threshold_bytes,
        part_bytes=store.part_size_bytes,
    )
    size = float(spec.file_size) if asked.files else roomy_file_bytes(load, float(spec.file_size), model)
    other = float(spec.file_size) if size != spec.file_size or asked.files else None
    if size > spec.file_size:
        load = load.in_files_of(size)
        files = Figure(load.files, f"as many as files of {show_bytes(size)}")
    most, about_room = _room(lakehouse, asked)
    client = replace(OURS, **{each.name: getattr(store.policy, each.name) for each in fields(store.policy)})
    advice = advise(load, client=client, scaling=model, most_in_flight=most, other_file_bytes=other)
    run = RunPlan(
        table=spec.name,
        first=hours.first.key,
        last=hours.last.key,
        spec=spec_print(spec),
        engine=engine_print(lakehouse.engine),
        store=store_print(lakehouse.catalog),
        sources="".join(inputs_print(known.inputs[hour]) for hour in hours) if known.inputs else "",
        hours_in_flight=advice.in_flight,
        apart_s=0.0 if etl_s.assumed else advice.apart_s,
        tries=advice.tries,
        retry_s=advice.retry_s,
        file_size=min(max(MIN_FILE_SIZE, round(size)), MAX_FILE_SIZE),
    )
    notes = (about_room, _about_store(location, store.connection.endpoint), *_about(spec, advice, etl_s, size))
    return Forecast(
        table=spec.name,
        hours=hours,
        there=len(known.there),
        sealed=len(known.sealed),
        missing=missing,
        missing_fail=spec.source.missing == "fail",
        source_bytes=sum(each.size for each in _by_url(known, todo).values()),
        bytes_=sizes,
        files=files,
        etl_s=etl_s,
        load=load,
        on_s3=on_s3,
        advice=advice,
        run=run,
        notes=tuple(filter(None, notes)),
    )


def _by_url(known: KnownHours, hours: Sequence[HourWindow]) -> dict[str, SourceObject]:
    """Give each object once, of however many hours it is."""
    return {
        each.url: each
        for hour in hours
        if hour in known.inputs and hour not in known.there
        for each in known.inputs[hour].source
    }


def _is_hashed(spec: TableSpec, table: HourlyTable | None) -> bool:
    """Tell whether keys have a hash before the hour: a table that is there says so itself, ours begin with one."""
    if table is not None:
        return str(table.table.metadata.properties.get(_BY_HASH, "false")).lower() == "true"
    return spec.properties.get(_BY_HASH, "true").lower() == "true"


def _location(spec: TableSpec, catalog: Mapping[str, str], table: HourlyTable | None) -> str:
    """Give where data files go, or will."""
    properties = table.table.metadata.properties if table else spec.properties
    return properties.get(_DATA_PATH) or (table.location if table else catalog.get("warehouse", ""))


def _room(lakehouse: Lakehouse, asked: Asked) -> tuple[int, str]:
    """Give for how many hours at once a run has room, and a note where that is not what somebody has just said."""
    a_run = lakehouse.backfill.hours_per_run
    if asked.at_most is not None:
        most, note = asked.at_most, ""
    elif isinstance(set_by_hand := lakehouse.backfill.hours_in_flight, int):
        most, note = set_by_hand, f"no more than lakehouse.yaml's hours_in_flight, {set_by_hand}, were considered"
    elif _LOCAL.fullmatch(lakehouse.engine):
        most = lakehouse.backfill.most_in_flight
        note = f"the engine is this machine: beyond {most} hours at once they wait for its cores"
    else:
        most = MOST_IN_FLIGHT
        note = (
            f"the engine is taken to have room for {MOST_IN_FLIGHT} hours at once that do not slow each other down; "
            "--at-most says how many it has"
        )
    if a_run != "all" and a_run < most:
        return a_run, f"a run of Dagster has no more than lakehouse.yaml's hours_per_run, {a_run}"
    return most, note


def _about_store(location: str, endpoint: str | None) -> str:
    """Say what the simulated store is, where that is not plain."""
    if location.startswith(ON_DISK):
        return "tables are files here: no store throttles them"
    if not location.startswith(S3_SCHEMES):
        return "where the table will be is its catalog's to say: S3 is assumed"
    return "the limits are those of AWS's S3, and s3.endpoint names a store that may have others" if endpoint else ""


def _about(spec: TableSpec, advice: Advice, etl_s: Figure, size: float) -> tuple[str, ...]:
    """Say what is to be taken with care."""
    found = []
    share = advice.recommended.predicted.throttle_share
    if share > MOST_503_SHARE:
        found.append(f"even {advice.in_flight} in flight meets 503s for {share:.0%} of its requests")
    if etl_s.assumed:
        found.append(
            "nobody has run an hour yet: run one or two, or say --seconds, and plan again before relying on it"
        )
        if advice.apart_s:
            found.append("a run of this plan begins its hours at once, as their seconds are assumed")
    if size > spec.file_size:
        found.append(f"write file_size: {size / 1e6:.0f}MB into the spec, too, or its compaction makes files smaller")
    return tuple(found)


def _ways(
    spec: TableSpec, files: LakehouseFileIO, objects: Sequence[SourceObject], there: str, told: Forecast
) -> tuple[TransferPlan | None, str]:
    """Cost the ways from the sources to the table's region; gives a note where that cannot be done."""
    if not objects or not (there.startswith(S3_SCHEMES) and objects[0].url.startswith(S3_SCHEMES)):
        return None, ""
    regions = files.region_of(objects[0].url), files.region_of(there)
    if regions[0] is None or regions[1] is None:
        return None, f"the store does not tell the regions of {objects[0].url} and {there}: no ways are compared"
    question = Question(
        (Origin(regions[0], sum(each.size for each in objects), len(objects)),),
        compute=regions[1],
        destination=regions[1],
        reads=times_read(spec),
        result_bytes=round(told.load.bytes_ * told.load.hours),
        compute_moves=regions[0] != regions[1],
    )
    try:
        return plan_transfer(question, price_book(spec)), ""
    except NoWayError as error:
        return None, str(error)
