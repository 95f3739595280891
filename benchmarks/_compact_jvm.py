"""The JVM's Iceberg, for `compact.py`: `rewrite_data_files` in one session, whose start is not counted."""

import tempfile
from pathlib import Path

from benchmarks import _timed
from tests.oracle.jvm import Jvm

NOT_ITS = ("py-io-impl", "oauth2-server-uri", "s3.region")


def properties() -> dict[str, str]:
    """Say the catalog's properties in Iceberg's own words."""
    told = _timed.told()
    return {
        **{key: value for key, value in told.items() if key not in NOT_ITS},
        "cache-enabled": "false",
        "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "http-client.type": "urlconnection",
        "client.region": told["s3.region"],
    }


def main() -> None:
    """Compact tables."""
    with tempfile.TemporaryDirectory() as folder, Jvm(Path(folder), properties()) as jvm:
        call = "CALL {0}.system.rewrite_data_files(table => '{1}', options => map('min-input-files', '2'))"

        def one(name: str) -> None:
            (row,) = jvm.sql(call.format(jvm.catalog, name))
            assert row["rewritten_data_files_count"], row

        _timed.run(one)


if __name__ == "__main__":
    main()
