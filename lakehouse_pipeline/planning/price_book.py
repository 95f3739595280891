"""The price book: ways to get bytes to where they are needed, as rows with a source and a date.

Rows come with the package (`ways.yaml`); a file of one's own adds some, or takes the place of those of the same name.
What a way costs for given bytes is `transfer`'s.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from lakehouse_pipeline.config.model import SpecModel, kind, sentences, several
from lakehouse_pipeline.config.problems import KeyPath, SpecError
from lakehouse_pipeline.config.quantities import read_count
from lakehouse_pipeline.config.validation import validated
from lakehouse_pipeline.config.yaml_source import Document, parse_document, read_document
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.planning.units import (
    read_bytes,
    read_dollars,
    read_dollars_each,
    read_dollars_per_byte,
    read_rate,
)

Moves = Literal["reads", "sources", "results"]

SAME_REGION, TWO_REGIONS = "same region", "two regions"  # needs that follow from where a way is used

_READERS = {
    "bandwidth": read_rate,
    "loading": read_rate,
    "capacity": read_bytes,
    "request_size": read_bytes,
    "per_byte": read_dollars_per_byte,
    "fixed": read_dollars,
    "per_shipment": read_dollars,
    "per_day": read_dollars,
    "per_request": read_dollars_each,
}


class Way(SpecModel):
    """One way to move bytes.

    Attributes:
        name: unlike every other way's.
        moves: `reads`: what the ETL reads crosses as it reads it, as often as it does; `sources`: raw objects are
            moved once, before the ETL; `results`: what the ETL has made is moved.
        days: before the last byte is there, whatever their number; of shipments, of each round of them.
        bandwidth: bits per second of all of it; None where it does not limit.
        capacity: bytes of one shipment; None where nothing is shipped.
        at_once: shipments that are on their way together; None for all.
        loading: bits per second at which one shipment is loaded, and again unloaded; None does not count either.
        per_byte: dollars.
        fixed: dollars, once.
        per_shipment: dollars.
        per_day: dollars, for as long as it takes.
        per_request: dollars.
        request_size: bytes that one request moves at most; there is one for each object at least.
        needs: what has to be there, in any words; `same region` and `two regions` are told by where it is used.
        source: of the figures.
        date: of the figures.
        assumed: which of them nobody has published.
    """

    name: str
    moves: tuple[Moves, ...] = Field(min_length=1, description="a list of reads, sources and results")
    days: float = Field(default=0.0, ge=0, description="fixed days, such as 14")
    bandwidth: float | None = Field(default=None, gt=0, description="such as 100 Gb/s")
    capacity: int | None = Field(
        default=None, gt=0, validate_default=True, description="bytes of a shipment, such as 80 TB"
    )
    at_once: int | None = Field(default=None, description="shipments on their way together, such as 10")
    loading: float | None = Field(default=None, gt=0, description="of one shipment, such as 10 Gb/s")
    per_byte: float = Field(default=0.0, description="such as $0.02/GB")
    fixed: float = Field(default=0.0, description="such as $300")
    per_shipment: float = Field(default=0.0, description="such as $300")
    per_day: float = Field(default=0.0, description="such as $54")
    per_request: float = Field(default=0.0, description="such as $0.005/1000")
    request_size: int | None = Field(default=None, gt=0, description="bytes that a request moves, such as 8 MiB")
    needs: tuple[str, ...] = Field(default=(), description="what has to be there, such as [private link]")
    source: str = Field(description="where the figures are from")
    date: str = Field(description="of when the figures are")
    assumed: tuple[str, ...] = Field(default=(), description="keys whose figures nobody has published")

    @field_validator(*_READERS, mode="before")
    @classmethod
    def _with_a_unit(cls, value: object, info: ValidationInfo) -> object:
        return _READERS[str(info.field_name)](value) if isinstance(value, str | list | dict) else value

    @field_validator("at_once", mode="before")
    @classmethod
    def _count(cls, value: object) -> int | None:
        return None if value is None else read_count(value, least=1)

    @field_validator("assumed")
    @classmethod
    def _keys(cls, assumed: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [(n, key) for n, key in enumerate(assumed) if key not in cls.model_fields]
        if unknown:
            raise several(((n,), f"{key!r} is no key of a way") for n, key in unknown)
        return assumed

    @field_validator("capacity")
    @classmethod
    def _takes_time(cls, capacity: int | None, info: ValidationInfo) -> int | None:
        if capacity is None and info.data.get("bandwidth", 1.0) is None:
            raise ConfigurationError("is missing, and so is bandwidth: without either a way takes no time; add one")
        return capacity

    @field_validator("at_once", "loading", "per_shipment")
    @classmethod
    def _is_shipped(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value and info.data.get("capacity", 1) is None:
            raise ConfigurationError("is of shipments, and nothing is shipped; add capacity, or take it out")
        return value


class PriceBook(SpecModel):
    """Ways by name."""

    ways: tuple[Way, ...] = Field(description="a mapping of names to ways")

    @field_validator("ways", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, tuple):
            return value
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"must be a mapping of names to ways, not {kind(value)}")
        ways: list[Way] = []
        found: list[tuple[KeyPath, str]] = []
        for name, row in value.items():
            try:
                ways.append(Way.model_validate({**row, "name": name} if isinstance(row, Mapping) else row))
            except ValidationError as error:
                found += [((name, *path), text) for path, text in sentences(error)]
        if found:
            raise several(found)
        return tuple(ways)

    def with_own(self, own: "PriceBook") -> "PriceBook":
        """Give both books as one; of two ways of a name the own one holds."""
        ways = {way.name: way for way in (*self.ways, *own.ways)}
        return PriceBook(ways=tuple(ways.values()))

    def that_move(self, what: Moves) -> tuple[Way, ...]:
        """Give the ways that move reads, sources or results."""
        return tuple(way for way in self.ways if what in way.moves)


def shipped_book() -> PriceBook:
    """Read the rows that come with the package."""
    text = files("lakehouse_pipeline.planning").joinpath("ways.yaml").read_text(encoding="utf-8")
    return parse_book(text, "ways.yaml")


def read_book(file: Path) -> PriceBook:
    """Read the shipped rows and those of a file.

    Raises:
        SpecError: every problem of the file, one line each.
    """
    return shipped_book().with_own(_book(read_document(file, str(file))))


def parse_book(text: str, label: str) -> PriceBook:
    """Read rows from text.

    Raises:
        SpecError: every problem, one line each.
    """
    return _book(parse_document(text, label))


def _book(document: Document) -> PriceBook:
    book, problems = validated(PriceBook, document, {}, Path())
    if book is None:
        raise SpecError(problems)
    return book
