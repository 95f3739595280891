import pytest
from pydantic import ValidationError

from lakehouse_pipeline.config.types import Column, column_named, parse_type
from lakehouse_pipeline.errors import ConfigurationError

_ALL = "write one of boolean, int, long, float, double, date, timestamp, timestamptz, string, binary, decimal(p,s)"


@pytest.mark.parametrize(
    ("written", "type_name", "required"),
    [
        ("boolean", "boolean", False),
        ("int!", "int", True),
        ("long !", "long", True),
        ("timestamptz!", "timestamptz", True),
        ("decimal(38,38)", "decimal(38,38)", False),
        ("decimal( 10 , 2 )!", "decimal(10,2)", True),
        ("decimal(1,0)", "decimal(1,0)", False),
    ],
)
def test_types_as_written(written: str, type_name: str, required: bool) -> None:  # noqa: FBT001  # a case of the table
    """A type is Iceberg's name; `!` says that null is refused; blanks say nothing."""
    assert Column.parse("c", written) == Column(name="c", type=type_name, required=required)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        pytest.param("strng", "'strng' is no type; did you mean 'string'?", id="typo"),
        pytest.param("Long", "'Long' is no type; did you mean 'long'?", id="capitals"),
        pytest.param("decimel(10,2)", "'decimel(10,2)' is no type; did you mean 'decimal(p,s)'?", id="typo of decimal"),
        pytest.param("bigint", "'bigint' is no type; did you mean 'long'?", id="SQL's name"),
        pytest.param("varchar(10)", "'varchar(10)' is no type; did you mean 'string'?", id="SQL's name with a length"),
        pytest.param("qqq", f"'qqq' is no type; {_ALL}", id="nothing near"),
        pytest.param("", f"'' is no type; {_ALL}", id="empty"),
        pytest.param("time", f"Iceberg's type 'time' is not supported yet; {_ALL}", id="time"),
        pytest.param("uuid", f"Iceberg's type 'uuid' is not supported yet; {_ALL}", id="uuid"),
        pytest.param("fixed[16]", f"Iceberg's type 'fixed[16]' is not supported yet; {_ALL}", id="fixed"),
        pytest.param("struct<a: int>", f"Iceberg's type 'struct<a: int>' is not supported yet; {_ALL}", id="struct"),
        pytest.param("list<int>", f"Iceberg's type 'list<int>' is not supported yet; {_ALL}", id="list"),
        pytest.param("map<int,int>", f"Iceberg's type 'map<int,int>' is not supported yet; {_ALL}", id="map"),
        pytest.param("timestamp_ns", f"Iceberg's type 'timestamp_ns' is not supported yet; {_ALL}", id="nanoseconds"),
        pytest.param(
            "decimal", "'decimal' is no type; write decimal(10,2), inside { } in quotes: \"decimal(10,2)\"", id="bare"
        ),
        pytest.param(
            "decimal(39,2)",
            "decimal(39,2) does not exist; the precision is 1 to 38, the scale 0 to the precision",
            id="precision",
        ),
        pytest.param(
            "decimal(0,0)",
            "decimal(0,0) does not exist; the precision is 1 to 38, the scale 0 to the precision",
            id="no digit",
        ),
        pytest.param(
            "decimal(4,5)",
            "decimal(4,5) does not exist; the precision is 1 to 38, the scale 0 to the precision",
            id="scale",
        ),
    ],
)
def test_what_is_no_type(written: str, message: str) -> None:
    """What is not supported yet is told from what Iceberg does not know, and the nearest name is offered."""
    with pytest.raises(ConfigurationError) as refused:
        parse_type(written)
    assert str(refused.value) == message


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "a.b", "a`b"])
def test_names_that_engines_misread_are_refused(name: str) -> None:
    """A name is neither blank nor a path into nested columns."""
    with pytest.raises(ValidationError, match="rename it"):
        Column(name=name, type="int")


def test_a_missing_column_has_a_way_out() -> None:
    """The nearest column is offered."""
    columns = (Column(name="carrier", type="string"), Column(name="origin", type="string"))
    assert column_named("origin", columns) is columns[1]
    with pytest.raises(ConfigurationError, match=r"^there is no column 'carier'; did you mean 'carrier'\?$"):
        column_named("carier", columns)
