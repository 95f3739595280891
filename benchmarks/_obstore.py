"""Rust's object_store, at an S3 server of ours: a peer, and what puts many tiny objects fast."""

from collections.abc import Mapping
from typing import Any

from obstore.store import S3Store


def s3_store(bucket: str, properties: Mapping[str, str], **more: Any) -> S3Store:
    """Open a bucket by the properties of PyIceberg."""
    return S3Store(
        bucket,
        endpoint=properties["s3.endpoint"],
        region=properties["s3.region"],
        access_key_id=properties["s3.access-key-id"],
        secret_access_key=properties["s3.secret-access-key"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        **more,
    )
