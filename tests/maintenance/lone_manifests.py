"""A manifest rewrite in a process of its own that is killed at an event, and what tests look at before and after."""

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lakehouse_pipeline import events
from lakehouse_pipeline.iceberg.event_time import EventTime
from lakehouse_pipeline.iceberg.manifests import DELETED, manifests_of, read_entries
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.maintenance.lease import maintaining
from lakehouse_pipeline.maintenance.manifests import ManifestsRewritten, look, rewrite_manifests
from tests.iceberg.lake import Lake

SMALL = {"commit.manifest.target-size-bytes": "1000"}  # then it is twice a manifest's header


@dataclass(frozen=True)
class LoneRewrite:
    """A rewrite of whatever is worth it.

    Attributes:
        catalog: its properties.
        identifier: of the table.
        at: the event at which its process is killed.
    """

    catalog: Mapping[str, str]
    identifier: str
    at: str

    def __call__(self) -> None:
        """Run it, in a process of its own."""

        def heard(event: events.Event) -> None:
            if event.name == self.at:
                os.kill(os.getpid(), signal.SIGKILL)

        with events.subscribed(heard):
            rewritten(Lake(open_catalog(self.catalog), self.identifier), "killed")


def rewritten(lake: Lake, run_id: str = "manifests") -> ManifestsRewritten:
    """Plan and run; whoever held the lease before is known to have ended."""
    table = lake.now
    with maintaining(table, "manifests", run_id, lambda _run_id: True) as held:
        return rewrite_manifests(table, look(table), held)


def live_entries(lake: Lake) -> dict[str, dict[str, Any]]:
    """Give all that the head's manifests say of their live files, by path; what is unset is left out."""
    found = dict[str, dict[str, Any]]()
    table = lake.now.table
    for manifest in manifests_of(table.metadata, table.io, lake.now.head):
        for entry in read_entries(table.io, manifest):
            if entry["status"] != DELETED:
                told = {name: value for name, value in entry["data_file"].items() if value is not None}
                path = told["file_path"]
                assert path not in found
                found[path] = {
                    **told,
                    "spec_id": manifest.partition_spec_id,
                    "of": manifest.content,
                    **{name: value for name, value in entry.items() if name not in {"status", "data_file"}},
                }
    return found


def manifests_by_hour(lake: Lake) -> dict[int, int]:
    """Count, for each hour that a file is of, the manifests that the manifest list gives for it."""
    table = lake.now.table
    told = EventTime.of(table.metadata, lake.hour)
    hours = {file.hour for file in lake.now.all_live() if file.hour is not None}
    spans = [told.in_manifest(each) for each in manifests_of(table.metadata, table.io, lake.now.head)]
    return {hour: sum(span.meets((hour,)) for span in spans) for hour in hours}


def statuses(lake: Lake) -> Iterator[tuple[str, int]]:
    """Give the manifest and the status of each entry of the head."""
    table = lake.now.table
    for manifest in manifests_of(table.metadata, table.io, lake.now.head):
        for entry in read_entries(table.io, manifest):
            yield manifest.manifest_path, entry["status"]
