"""PyIceberg's catalog properties: which of them hold local paths, and how those become absolute.

They pass through otherwise: what they mean is PyIceberg's to say.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from lakehouse_pipeline.config.paths import file_url

_SQLITE = re.compile(r"(sqlite(?:\+[a-z]+)?:///)(?!/|:memory:|file:)(.+)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def resolve_catalog(catalog: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Make local paths absolute: that of a SQLite URI, and `warehouse`, which is a name where the catalog is REST."""
    resolved = dict(catalog)
    if match := _SQLITE.fullmatch(catalog.get("uri", "")):
        resolved["uri"] = f"{match[1]}{folder / match[2]}"
    warehouse = catalog.get("warehouse", "")
    if warehouse and not _SCHEME.match(warehouse) and _holds_paths(catalog):
        resolved["warehouse"] = file_url(str(folder / warehouse))
    return resolved


def _holds_paths(catalog: Mapping[str, str]) -> bool:
    # As pyiceberg.catalog.infer_catalog_type tells; with neither type nor URI the kind stands in .pyiceberg.yaml.
    told = catalog.get("type", "").lower() or catalog.get("uri", "")
    return bool(told) and told != "rest" and not told.startswith("http")
