"""Iceberg's object-store layout of before 1.7 (2023 to 2024), for comparison: base-64 digits in one folder level.

As `write.py-location-provider.impl` of a table. The hash is the same murmur3 of 32 bits, of the same name.
"""

import base64

import mmh3
from pyiceberg.partitioning import PartitionKey
from pyiceberg.table.locations import LocationProvider


class Base64Locations(LocationProvider):
    """`<data>/<6 digits of 64>/<partition path>/<file>`."""

    def new_data_location(self, data_file_name: str, partition_key: PartitionKey | None = None) -> str:
        """Give a file's place."""
        name = f"{partition_key.to_path()}/{data_file_name}" if partition_key else data_file_name
        hashed = mmh3.hash(name, signed=False).to_bytes(4, "little")  # Guava's order of an int's bytes
        return f"{self.data_path}/{base64.urlsafe_b64encode(hashed).decode().rstrip('=')}/{name}"
