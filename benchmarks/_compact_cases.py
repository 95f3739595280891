"""The cases of `compact.py`: what a table is like, who compacts it in what way, and what it holds in the end."""

import json
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks._compact_tables import DELETED, NARROW, VERSIONED, WIDE, Asked, Left, all_of, latest, not_deleted

ZAMBONI = Path(".lakehouse/benchmarks/zamboni").absolute()
ZAMBONI_PIN = "iceberg-zamboni==0.7.0"

# A file that the JVM writes anew is one by its size, as one of ours is; deletes go with the files that they were of.
BIN_PACK = "'min-input-files', '2'"
WITH_DELETES = f"{BIN_PACK}, 'remove-dangling-deletes', 'true'"
MERGE_ON_READ = {"write.delete.mode": "merge-on-read"}
SMALL_TARGET = {"write.target-file-size-bytes": str(4 * 1024**2)}
SORTED_BY = ("id", "value")


@dataclass(frozen=True)
class Writer:
    """Who compacts, and how.

    Attributes:
        module: of this folder.
        how: what the module is told, as JSON.
        expects: ours: the strategy that it has to come to by its own rule.
        python: its interpreter.
    """

    module: str
    how: Mapping[str, Any] = field(default_factory=dict)
    expects: str = ""
    python: str = sys.executable

    def command(self, properties: Mapping[str, str], tables: Sequence[str]) -> tuple[str, ...]:
        """Give the process that compacts tables, the last of which counts."""
        return (self.python, "-m", f"benchmarks.{self.module}", json.dumps(properties), json.dumps(self.how), *tables)


@dataclass(frozen=True)
class Case:
    """A table and its writers, of whom the first is what the others are held against.

    Attributes:
        asked: the table.
        writers: by what they are shown as.
        left: what the table holds in the end.
        deletes: what the JVM deletes before anybody compacts; empty where nothing is.
        filters: columns whose point filters are held against the files' bounds.
    """

    asked: Asked
    writers: Mapping[str, Writer]
    left: Left = all_of
    deletes: str = ""
    filters: Sequence[str] = ()

    def resized(self, hours: int | None, files: int | None, rows: int | None) -> "Case":
        """Give it with other sizes, where they are told."""
        asked = self.asked
        other = replace(asked, hours=hours or asked.hours, files=files or asked.files, rows=rows or asked.rows)
        return replace(self, asked=other)


def ours(expects: str, *, workers: str = "threads", key: Sequence[str] = (), **compact: Any) -> Writer:
    """Give ours with these of the spec's `compact`."""
    return Writer("_compact_ours", {"compact": compact, "key": key, "workers": workers}, expects)


def jvm(*statements: str) -> Writer:
    """Give the JVM with statements, in which `{table}` and `{catalog}` stand for what it is to compact."""
    return Writer("_compact_jvm", {"statements": statements})


def rewrite_data_files(options: str = BIN_PACK, more: str = "") -> Writer:
    """Give the JVM's own compaction."""
    return jvm(f"CALL {{catalog}}.system.rewrite_data_files(table => '{{table}}', options => map({options}){more})")


def peers(*, with_zamboni: bool) -> Mapping[str, Writer]:
    """Give the others that make fewer files of many."""
    known = {
        "JVM, `rewrite_data_files`": rewrite_data_files(),
        "PyIceberg, overwrite by hour": Writer("_compact_pyiceberg"),
    }
    if with_zamboni or ZAMBONI.exists():
        known["Zamboni 0.7"] = Writer("_compact_zamboni", python=str(zamboni()))
    return known


def zamboni() -> Path:
    """Give the interpreter of Zamboni's environment, which is made if need be."""
    python = ZAMBONI / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ZAMBONI)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, ZAMBONI_PIN], check=True)
    return python


def cases(*, with_zamboni: bool, workers: Collection[str]) -> Mapping[str, Case]:
    """Give all cases by name; `workers` are other ones than threads that compact the small files, too."""
    others = peers(with_zamboni=with_zamboni)
    by_workers = {f"ours, {each}": ours("rewrite", workers=each) for each in workers}
    by_copy, by_rewrite = ours("copy"), ours("rewrite", strategy="rewrite")
    return {
        "small": Case(
            Asked(4, 40, 50_000),  # row groups of 1.3 MB
            {"ours": ours("rewrite"), **by_workers, "ours, copy forced": ours("copy", copy_row_groups="1kB"), **others},
        ),
        "large": Case(  # row groups of 37 MB
            Asked(2, 6, 640_000, WIDE), {"ours": by_copy, "ours, rewrite forced": by_rewrite, **others}
        ),
        "below": Case(Asked(2, 6, 500_000, WIDE), {"ours": ours("rewrite"), **others}),  # of 29 MB
        "merge": _merge(),
        "sort": _sorted("sort", f"{SORTED_BY[0]} ASC NULLS FIRST, {SORTED_BY[1]} ASC NULLS FIRST"),
        "zorder": _sorted("zorder", f"zorder({', '.join(SORTED_BY)})"),
        "deletes": Case(
            Asked(2, 40, 50_000, NARROW, MERGE_ON_READ),
            {"ours": ours("rewrite"), "JVM, `rewrite_data_files`": rewrite_data_files(WITH_DELETES)},
            left=not_deleted,
            deletes=f"DELETE FROM {{catalog}}.{{table}} WHERE {DELETED}",
        ),
    }


def _merge() -> Case:
    names = ", ".join(VERSIONED)
    last = f"SELECT *, row_number() OVER (PARTITION BY id ORDER BY version DESC) AS n FROM {'{catalog}.{table}'}"
    overwrite = f"INSERT OVERWRITE {{catalog}}.{{table}} SELECT {names} FROM ({last}) WHERE n = 1 AND NOT deleted"
    merge = (
        "MERGE INTO {catalog}.{table} AS t "
        "USING (SELECT id, max(version) AS version FROM {catalog}.{table} GROUP BY id) AS s ON t.id = s.id "
        "WHEN MATCHED AND (t.version < s.version OR t.deleted) THEN DELETE"
    )
    return Case(
        Asked(2, 20, 50_000, VERSIONED),
        {
            "ours": ours("merge", strategy="merge", key=["id"], version="version", deleted="deleted"),
            "JVM, `INSERT OVERWRITE` of `row_number() = 1`": jvm(overwrite),
            "JVM, `MERGE INTO … DELETE`": jvm(merge),
        },
        left=latest,
    )


def _sorted(strategy: str, order: str) -> Case:
    return Case(
        Asked(2, 40, 50_000, NARROW, SMALL_TARGET),
        {
            "ours": ours(strategy, strategy=strategy, columns=SORTED_BY),
            "JVM, `rewrite_data_files`": rewrite_data_files(more=f", strategy => 'sort', sort_order => '{order}'"),
        },
        filters=SORTED_BY,
    )
