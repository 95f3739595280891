import pytest
from pydantic import ValidationError

from lakehouse_pipeline.config.types import (
    Column,
    ListType,
    MapType,
    NestedType,
    StructType,
    column_named,
    nested_type,
    parse_type,
    primitive_column,
)
from lakehouse_pipeline.errors import ConfigurationError

_ALL = "write one of boolean, int, long, float, double, date, timestamp, timestamptz, string, binary, decimal(p,s)"
_FORMS = "struct<a:int!,b:string>, list<long> or map<string,double>"
_NESTED = f"write {_FORMS}"


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
        ("list<long!>!", "list<long!>", True),
        ("list < long ! >", "list<long!>", False),
        ("map< string , decimal( 9 , 2 )!>", "map<string,decimal(9,2)!>", False),
        ("struct<a: int!, b : list<string>>!", "struct<a:int!,b:list<string>>", True),
        (
            "list<struct<m:map<string,list<int!>!>,d:decimal(4,2)>>",
            "list<struct<m:map<string,list<int!>!>,d:decimal(4,2)>>",
            False,
        ),
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
        pytest.param("struct", f"'struct' is no type; {_NESTED}", id="struct of nothing"),
        pytest.param("struct<>", f"'struct<>' is no type; write name:type for each field: {_FORMS}", id="no field"),
        pytest.param("struct<a>", f"'struct<a>' is no type; write name:type for each field: {_FORMS}", id="no colon"),
        pytest.param("struct<a:strng>", "'strng' is no type; did you mean 'string'?", id="typo inside"),
        pytest.param(
            "struct<a:int,A:int>",
            "'struct<a:int,A:int>' has the fields 'a' and 'A'; rename one",
            id="fields that differ in case",
        ),
        pytest.param(
            "struct<a.b:int>",
            "a column's name holds '.' or '`', which Iceberg and Spark read as more; rename it",
            id="field with a dot",
        ),
        pytest.param("list<int,int>", f"'list<int,int>' is no type; {_NESTED}", id="list of two"),
        pytest.param("list<int", f"'list<int' is no type; {_NESTED}", id="not closed"),
        pytest.param("list<list<int>", f"'list<int' is no type; {_NESTED}", id="not closed inside"),
        pytest.param("map<int>", f"'map<int>' is no type; {_NESTED}", id="map of one"),
        pytest.param("map<int!,int>", "a map's keys are never null; take the ! of the key out", id="marked key"),
        pytest.param(
            "map<list<int>,int>",
            "'list<int>' cannot be a map's key; keys are of a primitive type, such as string",
            id="nested key",
        ),
        pytest.param(
            "list<" * 21 + "int" + ">" * 21,
            "has more than 20 levels of types; keep the inner ones as JSON in a string",
            id="too deep",
        ),
        pytest.param("array<int>", "'array<int>' is no type; did you mean 'list<…>'?", id="Spark's list"),
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


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        pytest.param("decimal(10,2)", None, id="primitive"),
        pytest.param("list<long!>", ListType("long", element_required=True), id="list"),
        pytest.param("map<int,list< long >>", MapType("int", "list<long>", value_required=False), id="map"),
        pytest.param(
            "struct<a:int!,b:map<string,double>>",
            StructType((Column(name="a", type="int", required=True), Column(name="b", type="map<string,double>"))),
            id="struct",
        ),
    ],
)
def test_a_nested_type_comes_apart(written: str, parts: NestedType | None) -> None:
    """One level at a time, the types inside in their text form."""
    assert nested_type(written) == parts


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


def test_columns_that_values_are_compared_by_are_primitive() -> None:
    """There is no order of structs, and no hour of a list."""
    columns = (Column(name="tags", type="list<string>"),)
    with pytest.raises(ConfigurationError, match=r"^column 'tags' is list<string>; name one of a primitive type$"):
        primitive_column("tags", columns)
