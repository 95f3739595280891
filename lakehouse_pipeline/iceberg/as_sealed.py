"""Whether an hour's files are still just those of a seal: told from the manifest list, with no manifest read.

Manifests never change, and a seal names its own: where no other may have files of the hour, that is as it was
sealed.
An hour of 100,000 files has 80 MB of manifests that nobody needs to read for that.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping

from pyiceberg.io import FileIO
from pyiceberg.table.metadata import TableMetadata

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.event_time import EventTime, HourSpan
from lakehouse_pipeline.iceberg.manifests import manifests_of
from lakehouse_pipeline.ledger.records import Seal


def digests_as_sealed(
    metadata: TableMetadata,
    files: FileIO,
    snapshot_id: int | None,
    event_time: EventTime,
    seals: Mapping[HourWindow, Collection[Seal]],
) -> dict[HourWindow, str]:
    """Give the digests of the live files of those hours that are as one of their seals says; of others, nothing.

    Args:
        metadata: of the table.
        files: the store.
        snapshot_id: whose live files; of None there are none.
        event_time: tells of which hours a manifest's files can be.
        seals: what is known of each hour.
    """
    near = _ByHour()
    for manifest in manifests_of(metadata, files, snapshot_id):
        if manifest.has_added_files() or manifest.has_existing_files():
            near.add(manifest.manifest_path, event_time.in_manifest(manifest))
    return {
        hour: seal.digest
        for hour, known in seals.items()
        for seal in known
        if not seal.kept and near.paths(hour) == {manifest.path for manifest in seal.manifests}
    }


class _ByHour:
    """Manifests by the hours that they can have files of."""

    def __init__(self) -> None:
        self._of_one: defaultdict[float, set[str]] = defaultdict(set)
        self._of_more: list[tuple[str, HourSpan]] = []

    def add(self, path: str, span: HourSpan) -> None:
        if span.low == span.high:
            self._of_one[span.low].add(path)
        else:
            self._of_more.append((path, span))

    def paths(self, hour: HourWindow) -> set[str]:
        wide = {path for path, span in self._of_more if span.meets((hour.ordinal,))}
        return self._of_one.get(hour.ordinal, set()) | wide
