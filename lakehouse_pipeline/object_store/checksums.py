"""CRC64NVME, S3's own checksum of whole objects: of bytes, of bytes in pieces, and as S3 writes it.

Sums of pieces make the sum of the whole, so that a range which the store copied is checked without being read.
"""

import base64
import binascii
from typing import Any

import anycrc

from lakehouse_pipeline.errors import SafetyError

SUM_BYTES = 8

# Not AWS's own `awscrt`: where that is installed botocore signs with it, which takes a request several times as long.
_MODEL = anycrc.Model("CRC64-NVME")


class ChecksumMismatchError(SafetyError):
    """Bytes are not those whose checksum was recorded: nothing was made of them."""


def crc64nvme(data: Any, before: int = 0) -> int:
    """Sum up bytes, or any buffer of them; `before` is the sum of what stands before them."""
    return _MODEL.calc(data, before)  # type: ignore[no-any-return]  # the library has no types


def joined(first: int, second: int, second_bytes: int) -> int:
    """Give the sum of two pieces, one behind the other; of the second the length counts, too."""
    return _MODEL.combine(first, second, second_bytes)  # type: ignore[no-any-return]  # the same


def to_text(crc: int) -> str:
    """Write a sum as S3 does: base64 of eight bytes, the highest first."""
    return base64.b64encode(crc.to_bytes(SUM_BYTES, "big")).decode()


def from_text(text: str) -> int:
    """Read a sum.

    Raises:
        ValueError: it is none.
    """
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text!r} is no CRC64NVME: {error}") from None
    if len(found) != SUM_BYTES:
        raise ValueError(f"{text!r} is no CRC64NVME: {len(found)} bytes, not {SUM_BYTES}")
    return int.from_bytes(found, "big")


def check(url: str, span: range, *, found: int, recorded: int) -> None:
    """Hold the sum of a range of an object against the one that was recorded.

    Raises:
        ChecksumMismatchError: names the object, the range and both sums.
    """
    if found != recorded:
        raise ChecksumMismatchError(
            f"{url}, bytes {span.start} to {span.stop - 1}: their CRC64NVME is {to_text(found)}, recorded as they were "
            f"written was {to_text(recorded)}; the object is damaged, or the record is of other bytes. "
            "Nothing was made of them"
        )
