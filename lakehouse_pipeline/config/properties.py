"""Properties of the Iceberg table: the values of those that we honour, and those that would be wrong for our tables.

A property that only other writers read passes as it is. What a property does is for the layers that write.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial

from lakehouse_pipeline.config.model import kind
from lakehouse_pipeline.config.problems import KeyPath
from lakehouse_pipeline.config.types import Column, column_named
from lakehouse_pipeline.errors import ConfigurationError

_CODEC = "write.parquet.compression-codec"
_LEVEL = "write.parquet.compression-level"
_METRICS_OF = "write.metadata.metrics.column."

_LEVELS = {  # of pyarrow.Codec; None: the codec knows no level
    "zstd": (1, 22),
    "gzip": (1, 9),
    "brotli": (0, 11),
    "lz4": (1, 12),
    "snappy": None,
    "uncompressed": None,
}
_ONLY = {  # properties of which we write one value only, and why
    "format-version": ("2", "PyIceberg cannot write v3 yet (apache/iceberg-python#1551)"),
    "write.format.default": ("parquet", "no other data files are written"),
    "write.wap.enabled": ("false", "hours are committed to main"),
}
_REFUSED = {  # properties that would not do what they say, and the way out
    "write.target-file-size-bytes": "write the key `file_size` of the spec",
    "write.object-storage.path": "write write.data.path, which took its place in Iceberg",
    "write.folder-storage.path": "write write.data.path, which took its place in Iceberg",
    "write.location-provider.impl": "take it out: keys of files are those of Iceberg's own object-storage layout",
    "write.py-location-provider.impl": "take it out: keys of files are those of Iceberg's own object-storage layout",
    "write.parquet.page-row-limit": "write write.parquet.page-size-bytes: pages are cut by bytes only",
    "encryption.key-id": "take it out, and let the bucket encrypt: encrypted files are not written",
}
_REFUSED_PREFIXES = {
    "write.parquet.bloom-filter-enabled.column.": "take it out, and sort by the column: bloom filters are not written",
    "write.parquet.bloom-filter-fpp.column.": "take it out: bloom filters are not written",
}

_COUNT = re.compile(r"[1-9][0-9]{0,17}")
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_METRICS = re.compile(r"none|counts|full|truncate\([1-9][0-9]{0,8}\)", re.IGNORECASE)


def property_problems(
    properties: Mapping[str, object], columns: tuple[Column, ...] | None
) -> list[tuple[KeyPath, str]]:
    """Find what is wrong with the properties of a spec, each problem at its key.

    Args:
        properties: as written.
        columns: of the table; None while they are not known.
    """
    found: list[tuple[KeyPath, str]] = []
    for key, value in properties.items():
        if not isinstance(value, str):
            problem = f"must be text, not {kind(value)}"
        elif "${" in value:
            problem = "'${' stays as it is here; variables are expanded in paths and in lakehouse.yaml only"
        else:
            problem = _refusal(key) or _only(key, value) or _value_problem(key, value, properties, columns)
        if problem:
            found.append(((key,), problem))
    return found


def _refusal(key: str) -> str:
    way_out = _REFUSED.get(key) or next((way for start, way in _REFUSED_PREFIXES.items() if key.startswith(start)), "")
    return f"is not honoured here; {way_out}" if way_out else ""


def _only(key: str, value: str) -> str:
    only, reason = _ONLY.get(key, (value, ""))
    return "" if value.lower() == only.lower() else f"{value!r} is not supported; write {only}: {reason}"


def _value_problem(key: str, value: str, properties: Mapping[str, object], columns: tuple[Column, ...] | None) -> str:
    if key == _LEVEL:
        return _level_problem(value, str(properties.get(_CODEC, "zstd")).lower())
    if key.startswith(_METRICS_OF):
        return _metrics_problem(value) or _column_problem(key.removeprefix(_METRICS_OF), columns)
    check = _CHECKS.get(key)
    return check(value) if check else ""


def _level_problem(value: str, codec: str) -> str:
    if codec not in _LEVELS:
        return ""  # said of the codec
    bounds = _LEVELS[codec]
    if bounds is None:
        return f"{codec} has no levels; take it out, or write {_CODEC}: zstd"
    if not _NUMBER.fullmatch(value) or not bounds[0] <= int(value) <= bounds[1]:
        return f"{value!r} is no level of {codec}; write {bounds[0]} to {bounds[1]}"
    return ""


def _column_problem(path: str, columns: tuple[Column, ...] | None) -> str:
    if columns is None:
        return ""
    try:
        column_named(path.partition(".")[0], columns)  # a part of a nested column is its path
    except ConfigurationError as error:
        return str(error)
    return ""


def _metrics_problem(value: str) -> str:
    if _METRICS.fullmatch(value):
        return ""
    return f"{value!r} is no metrics mode; write none, counts, truncate(16) or full"


def _count_problem(value: str) -> str:
    return "" if _COUNT.fullmatch(value) else f"{value!r} is no number of one or more; write one, such as 1048576"


def _word_problem(value: str, words: tuple[str, ...]) -> str:
    return "" if value.lower() in words else f"{value!r} is not supported; write {', '.join(words[:-1])} or {words[-1]}"


_switch_problem = partial(_word_problem, words=("true", "false"))
_CHECKS: Mapping[str, Callable[[str], str]] = {
    _CODEC: partial(_word_problem, words=tuple(_LEVELS)),
    "write.avro.compression-codec": partial(_word_problem, words=("gzip", "zstd", "uncompressed")),
    "write.parquet.row-group-size-bytes": _count_problem,
    "write.parquet.row-group-limit": _count_problem,
    "write.parquet.page-size-bytes": _count_problem,
    "write.parquet.dict-size-bytes": _count_problem,
    "write.metadata.metrics.default": _metrics_problem,
    "write.metadata.previous-versions-max": _count_problem,
    "write.metadata.delete-after-commit.enabled": _switch_problem,
    "write.object-storage.enabled": _switch_problem,
    "write.object-storage.partitioned-paths": _switch_problem,
    "commit.manifest-merge.enabled": _switch_problem,
    "commit.manifest.target-size-bytes": _count_problem,
    "commit.manifest.min-count-to-merge": _count_problem,
    "commit.retry.num-retries": _count_problem,
    "commit.retry.min-wait-ms": _count_problem,
    "commit.retry.max-wait-ms": _count_problem,
    "commit.retry.total-timeout-ms": _count_problem,
}
