"""Sessions: strict, joined where there is one, stopped by whoever started them."""

import subprocess
import sys
import threading

import pytest
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from lakehouse_pipeline.engines.sessions import LazySession, _host_and_port, open_session
from lakehouse_pipeline.errors import ConfigurationError


def test_session_is_strict_about_time_and_numbers(spark: SparkSession) -> None:
    """Instants are UTC's, and what does not fit fails; neither is left to the machine or to Spark's defaults."""
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    assert spark.conf.get("spark.sql.ansi.enabled") == "true"


def test_a_session_that_was_there_is_joined_and_stays(spark: SparkSession) -> None:
    """Whoever did not start a session does not stop it, from whatever thread it asks."""
    ended: list[bool] = []

    def use() -> None:
        lazy = LazySession("local[2]", "another")
        ended.append(lazy.get().sparkContext.applicationId == spark.sparkContext.applicationId)
        lazy.close()

    use()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert ended == [True, True]
    assert spark.range(3).count() == 3


def test_a_session_of_our_own_is_stopped() -> None:
    """Whoever started the session stops it; nothing starts before it is asked for."""
    code = (
        "from pyspark.sql import SparkSession\n"
        "from lakehouse_pipeline.engines.sessions import LazySession\n"
        "lazy = LazySession('local[1]', 'ours')\n"
        "assert SparkSession.getActiveSession() is None\n"
        "assert lazy.get().range(2).count() == 2\n"
        "lazy.close()\n"
        "print(SparkSession.getActiveSession())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


def _said_of(engine: str) -> str:
    """Give what is said of an engine that does not start, in a process of its own."""
    code = (
        "from lakehouse_pipeline.engines.sessions import open_session\n"
        "from lakehouse_pipeline.errors import ConfigurationError\n"
        f"try:\n    open_session({engine!r}, 'none')\n"
        "except ConfigurationError as error:\n    print(error)\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_no_java_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Java the error says what to install."""
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert "needs Java 17 or newer: install one" in _said_of("local[1]")


def test_a_master_that_is_not_there_was_taken_for_missing_java() -> None:
    """What Spark says of it is told, and which key to look at."""
    said = _said_of("spark://no host")
    assert "Spark did not start on spark://no host: " in said
    assert "Invalid master URL: spark://no host" in said
    assert "Is `engine` in lakehouse.yaml right" in said
    assert "Java 17" not in said


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("sc://host:15002;token=hidden", id="no slash"),
        pytest.param("sc://host;token=hidden", id="neither port nor slash"),
        pytest.param("sc://host:15002/;hidden", id="no key"),
        pytest.param("sc://host:15002/;token=hidden==", id="two equal signs"),
        pytest.param("sc://host:15002/;token=hid/den", id="a slash in the token"),
        pytest.param("sc://host:15002?token=hidden", id="a query"),
        pytest.param("sc://user:hidden@host:15002", id="a password"),
        pytest.param("sc://host:hidden", id="no number"),
        pytest.param("sc://host:99999/;token=hidden", id="no port"),
        pytest.param("sc://[::1/;token=hidden", id="half a bracket"),
        pytest.param("sc:///;token=hidden", id="no host"),
    ],
)
def test_an_address_that_is_none_is_not_shown(address: str) -> None:
    """It fails with the way out before anybody is called, and no part of a token is in the error or its causes."""
    with pytest.raises(ConfigurationError, match=r"^engine: is no address; write sc://host:port/;token=…") as told:
        open_session(address, "none")
    assert "hid" not in str(told.value)
    assert told.value.__cause__ is None
    assert told.value.__context__ is None


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("sc://host", ("host", 15002)),
        ("sc://host.example:443/", ("host.example", 443)),
        ("sc://127.0.0.1:9/;token=a%3D;use_ssl=true", ("127.0.0.1", 9)),
        ("sc://[::1]:9/;user_id=me", ("::1", 9)),
    ],
)
def test_an_address_names_a_host_and_a_port(address: str, place: tuple[str, int]) -> None:
    """Spark Connect's port is the default; parameters are PySpark's."""
    assert _host_and_port(address) == place


def test_an_error_of_a_query_is_said_once(spark: SparkSession, capfd: pytest.CaptureFixture[str]) -> None:
    """By whoever raises it: PySpark would print it with all of its Java stack, as one line, for each hour."""
    with pytest.raises(AnalysisException, match="nothing"):
        spark.sql("SELECT nothing FROM range(1)").collect()
    assert capfd.readouterr().err == ""
