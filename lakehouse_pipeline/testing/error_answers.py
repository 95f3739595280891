"""How S3, or an Iceberg REST catalog, says an error: status, headers and body."""

import email.utils
import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from xml.sax.saxutils import escape

from lakehouse_pipeline.testing.asked import Asked, Dialect
from lakehouse_pipeline.testing.schedule import Effect, Fault

HEADERS = {
    Dialect.S3: (("Server", "AmazonS3"), ("x-amz-request-id", "FAULT"), ("Content-Type", "application/xml")),
    Dialect.ICEBERG: (("Content-Type", "application/json"),),
}


@dataclass(frozen=True)
class ErrorAnswer:
    """An error.

    Attributes:
        status: of HTTP.
        code: S3's code, or the catalog's type of exception.
        message: for people.
    """

    status: int
    code: str
    message: str

    @property
    def reason(self) -> str:
        """Give the reason phrase: without one botocore does not take a status line for an answer to its `Expect`."""
        known = {status.value: status.phrase for status in HTTPStatus}
        return known.get(self.status, "Error")

    def headers(self, dialect: Dialect) -> list[tuple[str, str]]:
        """Give the headers, without those that frame the body."""
        return [("Date", email.utils.formatdate(usegmt=True)), *HEADERS[dialect]]

    def body(self, asked: Asked) -> bytes:
        """Give the body in the dialect of the request; S3's names the path."""
        if asked.dialect is Dialect.ICEBERG:
            error = {"message": self.message, "type": self.code, "code": self.status}
            return json.dumps({"error": error}).encode()
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message>"
            f"<Resource>{escape(asked.path)}</Resource><RequestId>FAULT</RequestId></Error>"
        ).encode()

    def body_of_keys(self, keys: Sequence[str], *, landed: bool) -> bytes:
        """Give a DeleteObjects' body: every key has failed, or of those that are gone every second one, the first too.

        A request cannot be forwarded with some of its keys: its signature covers them all.
        """
        results = "".join(
            f"<Deleted><Key>{escape(key)}</Key></Deleted>"
            if landed and number % 2
            else f"<Error><Key>{escape(key)}</Key><Code>{escape(self.code)}</Code>"
            f"<Message>{escape(self.message)}</Message></Error>"
            for number, key in enumerate(keys)
        )
        return f'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{results}</DeleteResult>'.encode()


_INTERNAL = ErrorAnswer(500, "InternalError", "We encountered an internal error. Please try again.")
_ANSWERS = {
    Dialect.S3: {
        Effect.SLOW_DOWN: ErrorAnswer(503, "SlowDown", "Please reduce your request rate."),
        Effect.INTERNAL_ERROR: _INTERNAL,
        Effect.ERROR_IN_200: ErrorAnswer(200, _INTERNAL.code, _INTERNAL.message),
        Effect.KEYS_REFUSED: ErrorAnswer(200, _INTERNAL.code, _INTERNAL.message),
        Effect.REFUSED: ErrorAnswer(
            412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"
        ),
        Effect.CONFLICT: ErrorAnswer(
            409,
            "ConditionalRequestConflict",
            "The conditional request cannot succeed due to a conflicting operation against this resource.",
        ),
    },
    Dialect.ICEBERG: {
        Effect.SLOW_DOWN: ErrorAnswer(503, "SlowDownException", "Slow down"),
        Effect.INTERNAL_ERROR: ErrorAnswer(500, "InternalServerError", "Internal server error"),
        Effect.ERROR_IN_200: ErrorAnswer(200, "InternalServerError", "Internal server error"),
        Effect.REFUSED: ErrorAnswer(412, "PreconditionFailedException", "Precondition failed"),
        Effect.CONFLICT: ErrorAnswer(409, "CommitFailedException", "Requirement failed: branch main has changed"),
    },
}


def throttle_answer(dialect: Dialect) -> ErrorAnswer:
    """Give what a range without capacity says."""
    return _ANSWERS[dialect][Effect.SLOW_DOWN]


def error_answer(fault: Fault, dialect: Dialect) -> ErrorAnswer:
    """Give what a fault says: its own status and code, or those of its effect."""
    usual = _ANSWERS[dialect][fault.effect]
    return ErrorAnswer(fault.status or usual.status, fault.code or usual.code, usual.message)
