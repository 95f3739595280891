"""The key `compact` of a spec, and who compacts."""

from collections.abc import Callable, Mapping

import pytest
from pydantic import ValidationError

from lakehouse_pipeline.backfill.plan import recipe_of
from lakehouse_pipeline.config.compaction import CompactSettings
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.config.model import sentences
from lakehouse_pipeline.config.table import TableSpec

Read = Callable[[Mapping[str, str | None]], TableSpec]
Problems = Callable[[Mapping[str, str | None]], list[str]]

_NO_SIZE = "is no size; write a number and a unit, such as 256MB or 1GiB"
_COUNT = "write a whole number from 1 on"
_SHARE = "write per cent from 0% to 100%"
_OPEN = "means nothing to a strategy that is left open; write strategy:"
_SOURCE = "{path: /%Y%m%d%H.jsonl, columns: {at: timestamptz!, id: long!, gone: boolean, tags: 'list<string>'}}"


def test_the_defaults(read_spec: Read) -> None:
    """They are those of Iceberg's `rewrite_data_files`; the strategy is taken by what fits."""
    assert read_spec({}).compact == CompactSettings(
        strategy=None,
        columns=(),
        version=None,
        deleted=None,
        min_file_size=None,
        max_file_size=None,
        min_input_files=5,
        max_file_group_size=100 * 2**30,
        delete_file_threshold=None,
        delete_ratio_threshold=0.3,
        groups_per_commit=None,
        copy_row_groups=32 * 2**20,
    )


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        pytest.param("{strategy: copy}", "strategy", "copy", id="copy"),
        pytest.param("{strategy: rewrite}", "strategy", "rewrite", id="rewrite"),
        pytest.param("{strategy: sort}", "strategy", "sort", id="sort by the table's order"),
        pytest.param("{strategy: sort, columns: [id, size]}", "columns", ("id", "size"), id="sort by others"),
        pytest.param("{strategy: zorder, columns: [id, size]}", "columns", ("id", "size"), id="zorder"),
        pytest.param("{strategy: merge, version: at}", "version", "at", id="version"),
        pytest.param("{min_file_size: 100MB}", "min_file_size", 100_000_000, id="smallest"),
        pytest.param("{max_file_size: 1GiB}", "max_file_size", 2**30, id="largest"),
        pytest.param("{max_file_group_size: 1.5GB}", "max_file_group_size", 1_500_000_000, id="group"),
        pytest.param("{copy_row_groups: 8MiB}", "copy_row_groups", 8 * 2**20, id="row groups"),
        pytest.param("{min_input_files: 1}", "min_input_files", 1, id="input files"),
        pytest.param("{delete_file_threshold: 2}", "delete_file_threshold", 2, id="delete files"),
        pytest.param("{delete_ratio_threshold: 12.5%}", "delete_ratio_threshold", 0.125, id="per cent"),
        pytest.param("{delete_ratio_threshold: 0%}", "delete_ratio_threshold", 0.0, id="no per cent"),
        pytest.param("{groups_per_commit: 3}", "groups_per_commit", 3, id="groups"),
    ],
)
def test_what_is_read(written: str, field: str, value: object, read_spec: Read) -> None:
    """Each key becomes the value that people mean."""
    assert getattr(read_spec({"key": "[id]", "compact": written}).compact, field) == value


@pytest.mark.parametrize(
    ("written", "problems"),
    [
        pytest.param("zorder", ["compact: must be a mapping of keys to values, not text"], id="text"),
        pytest.param(
            "{stratgy: copy}", ["compact.stratgy: is no key here; did you mean 'strategy'?"], id="unknown key"
        ),
        pytest.param(
            "{strategy: binpack}",
            ["compact.strategy: 'binpack' is not supported; write 'copy', 'rewrite', 'sort', 'zorder' or 'merge'"],
            id="unknown strategy",
        ),
        pytest.param(
            "{strategy: zorder}",
            ["compact.columns: is missing; name the columns that are interleaved"],
            id="zorder of nothing",
        ),
        pytest.param("{columns: [id]}", [f"compact.columns: {_OPEN} zorder"], id="columns of no strategy"),
        pytest.param(
            "{strategy: copy, columns: [id]}",
            ["compact.columns: means nothing to copy; write strategy: zorder"],
            id="columns of copies",
        ),
        pytest.param(
            "{strategy: merge}",
            ["compact.strategy: merge keeps one row of each key; name its columns in the table's key"],
            id="merge without a key",
        ),
        pytest.param(
            "{version: id, deleted: gone}",
            [f"compact.version: {_OPEN} merge", f"compact.deleted: {_OPEN} merge"],
            id="merge's keys of no strategy",
        ),
        pytest.param(
            "{strategy: sort, version: id}",
            ["compact.version: means nothing to sort; write strategy: merge"],
            id="version of a sort",
        ),
        pytest.param(
            "{strategy: zorder, columns: [id, nobody]}",
            ["compact.columns[1]: there is no column 'nobody'; write one of at, id, gone, tags"],
            id="unknown column",
        ),
        pytest.param(
            "{strategy: sort, columns: [tags]}",
            ["compact.columns[0]: column 'tags' is list<string>; name one of a primitive type"],
            id="nested column",
        ),
        pytest.param(
            "{strategy: zorder, columns: [id, at, id]}",
            ["compact.columns[2]: 'id' stands twice; take one out"],
            id="column twice",
        ),
        pytest.param(
            "{strategy: sort, columns: id}",
            ["compact.columns: must be a list, such as [a, b], not text"],
            id="a column",
        ),
        pytest.param("{min_file_size: 5}", [f"compact.min_file_size: '5' {_NO_SIZE}"], id="size without a unit"),
        pytest.param("{max_file_size: big}", [f"compact.max_file_size: 'big' {_NO_SIZE}"], id="no size"),
        pytest.param("{max_file_group_size: [1]}", [f"compact.max_file_group_size: a list {_NO_SIZE}"], id="list"),
        pytest.param("{copy_row_groups: -1MB}", [f"compact.copy_row_groups: '-1MB' {_NO_SIZE}"], id="less than none"),
        pytest.param("{min_input_files: 0}", [f"compact.min_input_files: is '0'; {_COUNT}"], id="no files"),
        pytest.param("{delete_file_threshold: few}", [f"compact.delete_file_threshold: is 'few'; {_COUNT}"], id="few"),
        pytest.param("{groups_per_commit: 1.5}", [f"compact.groups_per_commit: is '1.5'; {_COUNT}"], id="a half"),
        pytest.param(
            "{delete_ratio_threshold: 0.3}", [f"compact.delete_ratio_threshold: is '0.3'; {_SHARE}"], id="a share"
        ),
        pytest.param(
            "{delete_ratio_threshold: 101%}", [f"compact.delete_ratio_threshold: is '101%'; {_SHARE}"], id="too much"
        ),
    ],
)
def test_what_is_refused(written: str, problems: list[str], problems_of: Problems) -> None:
    """Every problem is told by its key, with the way out."""
    assert problems_of({"source": _SOURCE, "compact": written}) == problems


def test_deleted_is_boolean(problems_of: Problems) -> None:
    """A column of another type does not say whether a key is gone; one that is not there is told as such."""
    keys = {"source": _SOURCE, "key": "[id]"}
    assert problems_of({**keys, "compact": "{strategy: merge, deleted: id, version: vers}"}) == [
        "compact.version: there is no column 'vers'; write one of at, id, gone, tags",
        "compact.deleted: column 'id' is long; name one that is boolean",
    ]
    assert problems_of({**keys, "compact": "{strategy: merge, deleted: gone, version: at}"}) == []


def test_columns_that_are_not_known_yet(problems_of: Problems) -> None:
    """Where only the source's Parquet files know the columns, names are not judged."""
    keys = {"source": "{path: /raw/%Y/%m/%d/%H.parquet}", "key": "[id]"}
    assert problems_of({**keys, "compact": "{strategy: merge, version: v, deleted: d}"}) == []


def test_it_is_no_part_of_the_recipe(read_spec: Read) -> None:
    """How files are compacted does not change what an hour's rows are: no hour runs again for it."""
    keys = {"source": _SOURCE, "key": "[id]"}
    recipes = {
        recipe_of(read_spec({**keys, "compact": written}), {})
        for written in (None, "{strategy: merge, version: at}", "{min_file_size: 1MB, copy_row_groups: 1MB}")
    }
    assert len(recipes) == 1


@pytest.mark.parametrize("workers", ["threads", "spark", "ray"])
def test_workers(workers: str) -> None:
    """They are threads unless told otherwise."""
    assert MaintenanceSettings.model_validate({"workers": workers}).workers == workers
    assert MaintenanceSettings().workers == "threads"


def test_workers_of_another_kind() -> None:
    """They are refused with the words that there are."""
    with pytest.raises(ValidationError) as refused:
        MaintenanceSettings.model_validate({"workers": "dask"})
    assert sentences(refused.value) == [(("workers",), "'dask' is not supported; write 'threads', 'spark' or 'ray'")]
