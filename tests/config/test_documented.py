"""The reference page names what people can write."""

from pathlib import Path

import pytest

from lakehouse_pipeline.config.backfill import BackfillSettings
from lakehouse_pipeline.config.compaction import CompactSettings
from lakehouse_pipeline.config.health import HealthSettings
from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.config.model import SpecModel
from lakehouse_pipeline.config.source import Source
from lakehouse_pipeline.config.table import TableSpec

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
MODELS: dict[str, type[SpecModel]] = {
    "": TableSpec,
    "source.": Source,
    "compact.": CompactSettings,
    "backfill.": BackfillSettings,
    "health.": HealthSettings,
    "maintenance.": MaintenanceSettings,
}
KEYS = [
    f"{prefix}{name}"
    for prefix, model in MODELS.items()
    for name, field in model.model_fields.items()
    if field.description
] + [name for name, field in Lakehouse.model_fields.items() if field.description]


@pytest.mark.parametrize("key", [key for key in KEYS if f"{key}." not in MODELS])
def test_every_key_is_in_the_reference(key: str) -> None:
    """Each stands in a table of docs/configuration.md."""
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert any(f"`{key}`" in row for row in rows)
