"""From the path of one raw file to a template of all: which parts tell its time, and which differ from file to file.

Paths are text here: `drafts.look` lists what lies beside them. What a template means is `config.paths`'.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from lakehouse_pipeline.config.paths import literal

_YEAR, _MONTH, _DAY, _HOUR = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])", r"(?:[01]\d|2[0-3])"
# 2024/01/31, 2024-01-31, 20240131, year=2024/month=01/day=31, and an hour right behind it where there is one:
# 2024-01-31-05, 2024/01/31/05, 20240131T05, dt=2024-01-31/hour=05. Minutes and seconds follow the hour only.
_TIME = re.compile(
    rf"(?<!\d)(?P<Y>{_YEAR})"
    rf"(?:(?:[-_./]?|/(?:month|mon|mm?)=)(?P<m>{_MONTH})"
    rf"(?:(?:[-_./]?|/(?:day|dd?)=)(?P<d>{_DAY})"
    rf"(?:(?:[-_./ T]?|[/_-](?:hour|hr|hh?)[=_-]?)(?!{_YEAR}[-_/])(?P<H>{_HOUR})"
    r"(?P<glob>[:_.-]?[0-5]\d(?:[:_.-]?[0-5]\d)?)?)?)?)?(?!\d)",
    re.IGNORECASE,
)
_LONE_HOUR = re.compile(rf"(?<![0-9A-Za-z])(?:(?:hour|hr|hh?)[=_-]?|T)?(?P<H>{_HOUR})h?(?![0-9A-Za-z])", re.IGNORECASE)
_DIGITS = {"Y": 4, "m": 2, "d": 2, "H": 2}
_WORD = re.compile(r"([A-Za-z0-9]+)")
_DATE = 3  # parts of a time that are told by a date

Piece = tuple[str, str]  # text as it stands, and what it is: one of Y m d H, "*" for what varies, "" for the rest


@dataclass(frozen=True)
class Place:
    """A path taken apart.

    Attributes:
        pieces: in order; joined, their texts are the path.
    """

    pieces: tuple[Piece, ...]

    @property
    def template(self) -> str:
        """The path as a spec writes it."""
        text = "".join(f"%{what}" if what in _DIGITS else what or literal(text) for text, what in self.pieces)
        return re.sub(r"\*(?:[-_.]?\*)+", "*", text)

    @property
    def unit(self) -> str:
        """The smallest part of the time that the path tells: `Y`, `m`, `d` or `H`; empty where it tells none."""
        held = {what for _, what in self.pieces}
        return next((what for what in reversed(_DIGITS) if what in held), "")

    @property
    def start(self) -> datetime | None:
        """The first instant of the year, month, day or hour that the path tells."""
        return _instant({what: text for text, what in self.pieces if what in _DIGITS})

    @property
    def folder(self) -> str:
        """What all files of the template begin with, up to a slash."""
        lead = ""
        for text, what in self.pieces:
            if what:
                break
            lead += text
        return lead[: lead.rfind("/") + 1]


def place_of(path: str, *, lone_hour: bool = True) -> Place:
    """Find the time in a path: the part that tells most of it, and the others that tell the same.

    Args:
        path: from the place where a time may begin: a bucket's name is none.
        lone_hour: whether a number from 00 to 23 behind a date, such as `2024-01-31/events_05.csv`, is its hour.
    """
    found = [match for match in _TIME.finditer(path) if _is_time(match)]
    if not found:
        return Place(((path, ""),))
    best = max(found, key=lambda match: (len(_told(match)), match.start()))
    told = _told(best)
    spans = [span for match in found if match is best or _repeats(match, told) for span in _spans(match)]
    hours = list(_LONE_HOUR.finditer(path, best.end()))
    if lone_hour and len(told) == _DATE and len(hours) == 1:
        spans.append((*hours[0].span("H"), "H"))
    return Place(tuple(_cut(path, sorted(spans))))


def fitting(place: Place, paths: Iterable[str]) -> tuple[Place, dict[str, datetime | None]]:
    """Compare a path with others of the same make.

    Words that hold a digit may differ between files, and become `*`; words without one tell one kind of file from
    another, and may not.

    Returns:
        The place with what differs; and of each path that fits, the start of its time.
    """
    pieces = tuple(part for piece in place.pieces for part in _words(piece))
    matches = _matcher(pieces)
    varying: set[int] = set()
    times = {}
    for path in paths:
        match = matches.fullmatch(path)
        if match is None:
            continue
        told = {name: text for name, text in match.groupdict().items() if name in _DIGITS}
        if told and _instant(told) is None:
            continue
        times[path] = _instant(told)
        varying |= {n for n, (text, what) in enumerate(pieces) if _may_vary(text, what) and match[f"w{n}"] != text}
    return Place(tuple((text, "*" if n in varying else what) for n, (text, what) in enumerate(pieces))), times


def _is_time(match: re.Match[str]) -> bool:
    told, text = _told(match), match.string
    if len(told) < _DATE:  # a year or a month is told by a word of its own only
        around = text[max(match.start() - 1, 0) : match.start()] + text[match.end() : match.end() + 1]
        if any(character.isalnum() for character in around):
            return False
    return _instant(told) is not None


def _repeats(match: re.Match[str], best: dict[str, str]) -> bool:
    """Tell whether a time says again what the best one says: as a date, or as a folder of its own."""
    told, text = _told(match), match.string
    if not told.items() <= best.items():
        return False
    own_folder = text[match.start() - 1 : match.start()] in {"/", "="} and text[match.end() : match.end() + 1] == "/"
    return len(told) >= _DATE or own_folder


def _told(match: re.Match[str]) -> dict[str, str]:
    return {what: text for what, text in match.groupdict().items() if text is not None and what in _DIGITS}


def _instant(told: dict[str, str]) -> datetime | None:
    if "Y" not in told:
        return None
    year, month, day, hour = (int(told.get(what, first)) for what, first in zip("YmdH", (1, 1, 1, 0), strict=True))
    try:
        return datetime(year, month, day, hour, tzinfo=UTC)
    except ValueError:  # no day of the calendar
        return None


def _spans(match: re.Match[str]) -> list[tuple[int, int, str]]:
    spans = [(*match.span(what), what) for what in _told(match)]
    return [*spans, (*match.span("glob"), "*")] if match["glob"] else spans


def _cut(path: str, spans: list[tuple[int, int, str]]) -> Iterable[Piece]:
    at = 0
    for start, end, what in spans:
        yield path[at:start], ""
        yield path[start:end], what
        at = end
    yield path[at:], ""


def _words(piece: Piece) -> list[Piece]:
    text, what = piece
    return [piece] if what else [(part, "") for part in _WORD.split(text) if part]


def _may_vary(text: str, what: str) -> bool:
    return not what and text.isalnum() and any(character.isdigit() for character in text)


def _matcher(pieces: tuple[Piece, ...]) -> re.Pattern[str]:
    pattern = ""
    for n, (text, what) in enumerate(pieces):
        if what in _DIGITS:
            pattern += f"(?P={what})" if f"(?P<{what}>" in pattern else rf"(?P<{what}>\d{{{_DIGITS[what]}}})"
        elif what:
            pattern += "[^/]*"
        else:
            pattern += rf"(?P<w{n}>(?=[A-Za-z]*\d)[A-Za-z0-9]+)" if _may_vary(text, what) else re.escape(text)
    return re.compile(pattern)
