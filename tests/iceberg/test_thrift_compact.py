"""Whatever a struct holds comes back as it was written, and damage is a ValueError."""

import contextlib
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.iceberg.thrift_compact import (
    BINARY,
    DOUBLE,
    I8,
    I16,
    I32,
    I64,
    LIST,
    MAP,
    SET,
    STRUCT,
    TRUE,
    UUID,
    Elements,
    Entries,
    Struct,
    decode,
    encode,
)

LEAVES = {
    TRUE: st.booleans(),
    I8: st.binary(min_size=1, max_size=1),
    I16: st.integers(-(2**15), 2**15 - 1),
    I32: st.integers(-(2**31), 2**31 - 1),
    I64: st.integers(-(2**63), 2**63 - 1),
    DOUBLE: st.binary(min_size=8, max_size=8),
    BINARY: st.binary(max_size=200),
    UUID: st.binary(min_size=16, max_size=16),
}
KINDS = st.sampled_from(list(LEAVES))


@st.composite
def elements(draw: st.DrawFn) -> Elements:
    """Draw a list of leaves, or of structs."""
    kind = draw(KINDS | st.just(STRUCT))
    return Elements(kind, draw(st.lists(LEAVES.get(kind, STRUCTS), max_size=20)))


@st.composite
def entries(draw: st.DrawFn) -> Entries:
    """Draw a map of leaves."""
    keys, values = draw(KINDS), draw(KINDS)
    pairs = draw(st.lists(st.tuples(LEAVES[keys], LEAVES[values]), max_size=3))
    return Entries(keys << 4 | values if pairs else 0, pairs)


LEAF_FIELDS = st.one_of(*(st.tuples(st.just(kind), values) for kind, values in LEAVES.items()))
STRUCTS: st.SearchStrategy[Struct] = st.deferred(
    lambda: st.dictionaries(
        st.integers(1, 2**15 - 1) | st.integers(1, 20),
        LEAF_FIELDS
        | st.tuples(st.just(STRUCT), STRUCTS)
        | st.tuples(st.sampled_from([LIST, SET]), elements())
        | st.tuples(st.just(MAP), entries()),
        max_size=5,
    ).map(Struct)
)


@given(struct=STRUCTS)
def test_a_struct_comes_back(struct: Struct) -> None:
    """Every kind, nested, with fields near and far; and what is read is written as the same bytes."""
    assert decode(encode(struct)) == struct
    assert encode(decode(encode(struct))) == encode(struct)


def test_a_footer_of_arrow_comes_back_to_the_byte() -> None:
    """Its C++ writer and ours agree on every choice that the protocol leaves."""
    out = io.BytesIO()
    columns = {f"column {place}": pa.array([place, None, -place]) for place in range(40)}
    pq.write_table(pa.table(columns), out, write_page_index=True)
    length = int.from_bytes(out.getvalue()[-8:-4], "little")
    footer = out.getvalue()[-8 - length : -8]
    assert encode(decode(footer)) == footer


@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """With a ValueError, and without reading on and on."""
    with contextlib.suppress(ValueError):
        assert isinstance(decode(data), Struct)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"", "ends within a value", id="nothing"),
        pytest.param(b"\x15", "ends within a value", id="cut"),
        pytest.param(b"\x18\x05ab", "ends within a value", id="text"),
        pytest.param(b"\0\0", "ends after 1 of 2 bytes", id="more"),
        pytest.param(b"\x19\xf5\xff\xff\xff\xff\x0f", "elements in 0 bytes", id="long-list"),
        pytest.param(b"\x16" + b"\xff" * 10, "more than 64 bits", id="integer"),
        pytest.param(b"\x1e\0", "no kind 14", id="kind"),
        pytest.param(b"\x1c" * 100, "more than 64 levels", id="structs"),
        pytest.param(b"\x19" + b"\x19" * 100, "levels", id="lists"),
    ],
)
def test_damage_is_said(data: bytes, said: str) -> None:
    """And what of it was found."""
    with pytest.raises(ValueError, match=said):
        decode(data)


def test_fields_of_another_kind_are_refused() -> None:
    """By their number."""
    struct = Struct({1: (I32, -1), 2: (BINARY, b"x"), 3: (LIST, Elements(I32, [1]))})
    assert (struct.number(1), struct.text(2), struct.number(9), struct.text(9), struct.structs(9)) == (
        -1, b"x", None, None, [],
    )  # fmt: skip
    for ask in (
        lambda: struct.number(2),
        lambda: struct.text(1),
        lambda: struct.struct(2),
        lambda: struct.structs(3),
        lambda: struct.whole(1),
        lambda: struct.whole(9),
    ):
        with pytest.raises(ValueError, match=r"field \d is (no|negative|missing)"):
            ask()
