"""The JVM's Iceberg, for `compact.py`: statements in one session, whose start is not counted."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks import _timed
from tests.oracle.jvm import Jvm

NOT_ITS = ("py-io-impl", "oauth2-server-uri", "s3.region")


def properties(told: Mapping[str, str]) -> dict[str, str]:
    """Say the catalog's properties in Iceberg's own words."""
    return {
        **{key: value for key, value in told.items() if key not in NOT_ITS},
        "cache-enabled": "false",
        "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "http-client.type": "urlconnection",
        "client.region": told["s3.region"],
    }


def main() -> None:
    """Compact tables."""
    with tempfile.TemporaryDirectory() as folder, Jvm(Path(folder), properties(_timed.told())) as jvm:

        def one(name: str) -> None:
            for statement in _timed.how()["statements"]:
                for row in jvm.sql(statement.format(catalog=jvm.catalog, table=name)):
                    assert row.get("rewritten_data_files_count", 1), row

        _timed.run(one)


if __name__ == "__main__":
    main()
