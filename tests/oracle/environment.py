"""The peer's own environment: Spark 3.5 with the JVM's Iceberg runtime, made once and kept for later runs.

It cannot share ours, which has another PySpark. Tests take it as the oracle, benchmarks as the peer to beat.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

# 1.0.2 holds the complete runtime of Iceberg 1.10.2; 1.0.3 lacks its shaded Jackson. The AWS SDK's jars, which the
# runtime does not bring, come from Bodo's connector, of which nothing else is used.
PINS = ("pyspark==3.5.9", "snowpark-connect-deps-iceberg==1.0.2")
JARS_ONLY = ("bodo-iceberg-connector==2026.10",)

ROOT = Path(__file__).parents[2] / ".lakehouse" / "oracle"


def folder() -> Path:
    """Give the environment's folder, named after what is in it."""
    return ROOT / hashlib.sha256(" ".join((*PINS, *JARS_ONLY, sys.version)).encode()).hexdigest()[:12]


def python() -> Path:
    """Give the environment's interpreter; the environment is made if need be (about 0.7 GB, a minute or two)."""
    home = folder()
    ready = home / "ready"
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test runs and benchmarks of one folder take turns
        if not ready.exists():
            shutil.rmtree(home, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *PINS], check=True)
            subprocess.run([*pip, "--no-deps", "--target", str(home / "jars"), *JARS_ONLY], check=True)
            ready.touch()
    return home / "bin" / "python"


def iceberg_runtime() -> Path:
    """Give the jar of the Iceberg runtime for Spark 3.5 with Scala 2.12, as PySpark 3.5 from PyPI is built."""
    jars = "lib/python*/site-packages/snowpark_connect_deps_iceberg/jars"  # beside it is one of the extensions alone
    return next(folder().glob(f"{jars}/iceberg-spark-runtime-3.5_2.12-*.jar"))


def aws_jars() -> list[Path]:
    """Give the jars that Iceberg's S3FileIO needs beside the runtime: version 2 of the AWS SDK."""
    names = ("*-2.29.26.jar", "reactive-streams-*.jar", "eventstream-1*.jar", "third-party-jackson-core-*.jar")
    return sorted({jar for name in names for jar in folder().glob(f"jars/**/{name}")})
