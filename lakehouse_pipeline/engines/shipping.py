"""Our package on its way to tasks that run elsewhere; the libraries that it stands on have to be there already."""

import hashlib
import tempfile
import zipfile
from functools import cache
from pathlib import Path

from pyspark.sql import SparkSession

import lakehouse_pipeline
from lakehouse_pipeline.engines.capabilities import capabilities


def ship_package(session: SparkSession) -> None:
    """Send our package to where the session's tasks run."""
    file = str(_zipped(Path(lakehouse_pipeline.__file__).parent))
    if capabilities(session).connect:
        session.addArtifacts(file, pyfile=True)
    else:
        session.sparkContext.addPyFile(file)


@cache
def _zipped(package: Path) -> Path:
    """Zip a package's Python files, under a name that tells their content."""
    sources = sorted(package.rglob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    file = Path(tempfile.mkdtemp(prefix="lakehouse-package-")) / f"{package.name}-{digest}.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sources:
            archive.write(source, source.relative_to(package.parent))
    return file
