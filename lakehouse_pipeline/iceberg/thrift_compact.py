"""Thrift's compact protocol, read into a tree and written back: fields that nobody here knows stay as they are.

Our own and not the package `thrift`: its generic reader takes about three times as long in Python, and its C part needs
a description of every struct and drops the fields that the description lacks. Source of the format:
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

TRUE, FALSE, I8, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT, UUID = range(1, 14)

MOST_DEPTH = 64  # a footer has about 8 levels; more is a damaged one
MOST_VARINT_BYTES = 10  # of 64 bits
FIXED_BYTES = {I8: 1, DOUBLE: 8, UUID: 16}  # kept as they are: nothing here looks into them
NAMES = {BINARY: "text", LIST: "list", STRUCT: "struct"}


class Elements(NamedTuple):
    """The elements of a list or a set, which are all of one kind."""

    kind: int
    values: list[Any]


class Entries(NamedTuple):
    """The entries of a map."""

    kinds: int  # of keys and of values, as they were written
    pairs: list[tuple[Any, Any]]


class Struct(dict[int, tuple[int, Any]]):
    """Kind and value of each field by its id; made anew, not changed, by whoever wants another."""

    def number(self, field: int) -> int | None:
        """Give an integer, None where there is none."""
        kind, value = self.get(field, (I64, None))
        if kind not in (I16, I32, I64):
            raise ValueError(f"field {field} is no integer")
        return value  # type: ignore[no-any-return]  # as its kind says

    def whole(self, field: int) -> int:
        """Give an integer that must be there, and not below zero."""
        value = self.number(field)
        if value is None or value < 0:
            raise ValueError(f"field {field} is {'missing' if value is None else 'negative'}")
        return value

    def text(self, field: int) -> bytes | None:
        """Give bytes, None where there are none."""
        return self._of_kind(field, BINARY)  # type: ignore[no-any-return]  # as its kind says

    def struct(self, field: int) -> "Struct | None":
        """Give a struct, None where there is none."""
        return self._of_kind(field, STRUCT)  # type: ignore[no-any-return]  # as its kind says

    def structs(self, field: int) -> "list[Struct]":
        """Give a list of structs, which is empty where there is none."""
        found = self._of_kind(field, LIST)
        if found is None or not found.values:
            return []
        if found.kind != STRUCT:
            raise ValueError(f"field {field} is no list of structs")
        return found.values  # type: ignore[no-any-return]  # as its kind says

    def changed(self, fields: Mapping[int, tuple[int, Any] | None]) -> "Struct":
        """Give a struct with these fields in place of its own; None takes one away."""
        return Struct({field: told for field, told in {**self, **fields}.items() if told is not None})

    def _of_kind(self, field: int, wanted: int) -> Any:
        kind, value = self.get(field, (wanted, None))
        if kind != wanted:
            raise ValueError(f"field {field} is no {NAMES[wanted]}")
        return value


def decode(data: bytes) -> Struct:
    """Read a struct, which is all that is in `data`.

    Raises:
        ValueError: the bytes end before it does, or after it, or are no such struct.
    """
    try:
        struct, end = _struct(data, 0, 0)
    except IndexError:
        raise ValueError(f"its metadata ends within a value, after {len(data)} bytes") from None
    if end != len(data):
        raise ValueError(f"its metadata ends after {end} of {len(data)} bytes")
    return struct


def encode(struct: Struct) -> bytes:
    """Write a struct."""
    out = bytearray()
    _put_struct(out, struct)
    return bytes(out)


def _struct(data: bytes, at: int, depth: int) -> tuple[Struct, int]:
    if depth > MOST_DEPTH:
        raise ValueError(f"more than {MOST_DEPTH} levels")
    fields, field = Struct(), 0
    while head := data[at]:
        at += 1
        if head >> 4:
            field += head >> 4
        else:
            raw, at = _varint(data, at)
            field = _signed(raw)
        kind = head & 15
        if kind in (TRUE, FALSE):
            fields[field] = (TRUE, kind == TRUE)
        else:
            value, at = _value(data, at, kind, depth)
            fields[field] = (kind, value)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    """Read a value that is no field's boolean; what is asked most comes first."""
    if I16 <= kind <= I64:
        raw, at = _varint(data, at)
        return _signed(raw), at
    if kind == STRUCT:
        return _struct(data, at, depth + 1)
    if kind == BINARY:
        length, at = _varint(data, at)
        return _bytes(data, at, length), at + length
    if kind in (LIST, SET):
        return _elements(data, at, depth + 1)
    return _entries(data, at, depth + 1) if kind == MAP else _fixed(data, at, kind)


def _fixed(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (TRUE, FALSE):  # an element of a list
        return data[at] == TRUE, at + 1
    if kind not in FIXED_BYTES:
        raise ValueError(f"there is no kind {kind}")
    return _bytes(data, at, FIXED_BYTES[kind]), at + FIXED_BYTES[kind]


def _elements(data: bytes, at: int, depth: int) -> tuple[Elements, int]:
    head = data[at]
    count, kind, at = head >> 4, head & 15, at + 1
    if count == 15:  # noqa: PLR2004  # the count stands behind
        count, at = _varint(data, at)
    values = []
    for _ in range(_counted(data, at, count, depth)):
        value, at = _value(data, at, kind, depth)
        values.append(value)
    return Elements(kind, values), at


def _entries(data: bytes, at: int, depth: int) -> tuple[Entries, int]:
    count, at = _varint(data, at)
    if not count:
        return Entries(0, []), at
    kinds, at, pairs = data[at], at + 1, []
    for _ in range(_counted(data, at, count, depth)):
        key, at = _value(data, at, kinds >> 4, depth)
        value, at = _value(data, at, kinds & 15, depth)
        pairs.append((key, value))
    return Entries(kinds, pairs), at


def _counted(data: bytes, at: int, count: int, depth: int) -> int:
    """Refuse, before they are read, more elements than there are bytes: each has one at least."""
    if count > len(data) - at or depth > MOST_DEPTH:
        raise ValueError(f"{count} elements in {len(data) - at} bytes, {depth} levels deep")
    return count


def _bytes(data: bytes, at: int, length: int) -> bytes:
    if length > len(data) - at:
        raise IndexError
    return data[at : at + length]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 128:  # noqa: PLR2004  # the usual case, at once
        return byte, at + 1
    number = byte & 127
    for place in range(1, MOST_VARINT_BYTES):
        byte = data[at + place]
        number |= (byte & 127) << (7 * place)
        if byte < 128:  # noqa: PLR2004  # no byte behind it
            return number, at + place + 1
    raise ValueError("an integer of more than 64 bits")


def _signed(raw: int) -> int:
    return (raw >> 1) ^ -(raw & 1)


def _put_struct(out: bytearray, struct: Struct) -> None:
    last = 0
    for field in sorted(struct):
        kind, value = struct[field]
        code = (TRUE if value else FALSE) if kind == TRUE else kind
        if 0 < field - last <= 15:  # noqa: PLR2004  # four bits
            out.append((field - last) << 4 | code)
        else:
            out.append(code)
            _put_varint(out, _unsigned(field))
        last = field
        if kind != TRUE:
            _put_value(out, kind, value)
    out.append(0)


def _put_value(out: bytearray, kind: int, value: Any) -> None:
    if I16 <= kind <= I64:
        _put_varint(out, _unsigned(value))
    elif kind == STRUCT:
        _put_struct(out, value)
    elif kind == BINARY:
        _put_varint(out, len(value))
        out += value
    elif kind in (LIST, SET):
        _put_elements(out, value)
    elif kind in FIXED_BYTES:
        out += value
    elif kind in (TRUE, FALSE):
        out.append(TRUE if value else FALSE)
    else:
        _put_entries(out, value)


def _put_elements(out: bytearray, elements: Elements) -> None:
    count = len(elements.values)
    if count < 15:  # noqa: PLR2004  # else the count stands behind
        out.append(count << 4 | elements.kind)
    else:
        out.append(15 << 4 | elements.kind)
        _put_varint(out, count)
    for value in elements.values:
        _put_value(out, elements.kind, value)


def _put_entries(out: bytearray, entries: Entries) -> None:
    _put_varint(out, len(entries.pairs))
    if entries.pairs:
        out.append(entries.kinds)
    for key, value in entries.pairs:
        _put_value(out, entries.kinds >> 4, key)
        _put_value(out, entries.kinds & 15, value)


def _put_varint(out: bytearray, number: int) -> None:
    while number > 127:  # noqa: PLR2004  # seven bits a byte
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)


def _unsigned(number: int) -> int:
    return number << 1 if number >= 0 else (-number << 1) - 1
