from pathlib import Path

import pytest

from lakehouse_pipeline.config.transform import FunctionTransform, SqlTransform, read_transform
from lakehouse_pipeline.errors import ConfigurationError


def test_sql_is_read_from_beside_the_spec(tmp_path: Path) -> None:
    """The file's text is part of the transform."""
    (tmp_path / "a.sql").write_text("SELECT 'ü' FROM source\n", "utf-8")
    expected = SqlTransform(file=tmp_path / "a.sql", text="SELECT 'ü' FROM source\n")
    assert read_transform("a.sql", tmp_path) == expected


@pytest.mark.parametrize(
    ("written", "module", "function"), [("my.flights:clean", "my.flights", "clean"), ("m:_f1", "m", "_f1")]
)
def test_a_function_is_not_imported(written: str, module: str, function: str, tmp_path: Path) -> None:
    """Only its name is read: the module need not exist."""
    assert read_transform(written, tmp_path) == FunctionTransform(module=module, function=function)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        pytest.param(
            "no.sql", "'no.sql' cannot be read (No such file or directory); it is sought beside the spec", id="no file"
        ),
        pytest.param("x.sql", "'x.sql' cannot be read (Is a directory); it is sought beside the spec", id="folder"),
        pytest.param("e.sql", "'e.sql' is empty; write a SELECT over source, or take the key out", id="empty file"),
        pytest.param("l.sql", "'l.sql' is not UTF-8; save the file as UTF-8", id="latin-1"),
        pytest.param("clean", "'clean' is no transform; write a .sql file or module:function", id="word"),
        pytest.param("a:b:c", "'a:b:c' is no transform; write a .sql file or module:function", id="two colons"),
        pytest.param("a:", "'a:' is no transform; write a .sql file or module:function", id="no function"),
        pytest.param("a.class:f", "'a.class:f' is no transform; write a .sql file or module:function", id="keyword"),
        pytest.param("a/b.py:f", "'a/b.py:f' is no transform; write a .sql file or module:function", id="path"),
        pytest.param(["a"], "must be a .sql file or module:function, not a list", id="list"),
    ],
)
def test_what_is_refused(written: object, message: str, tmp_path: Path) -> None:
    """Anything else is refused with both forms named."""
    (tmp_path / "x.sql").mkdir()
    (tmp_path / "e.sql").write_text(" \n")
    (tmp_path / "l.sql").write_bytes(b"SELECT '\xff'")
    with pytest.raises(ConfigurationError) as refused:
        read_transform(written, tmp_path)
    assert str(refused.value) == message
