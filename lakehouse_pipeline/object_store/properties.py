"""A catalog's properties being read: typed, every problem collected, every `s3.*` name accounted for.

What the names mean is `settings`', `options`' and `vending`'s; which of them nobody here can honour stands here.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lakehouse_pipeline.errors import ConfigurationError

Value = TypeVar("Value")

TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "none", "")

# Hints for other FileIOs: whatever they say, the same objects are written and read here.
WITHOUT_EFFECT = (
    "s3.checksum-enabled",  # always on: boto3 sends and checks CRC32
    "s3.cross-region-access-enabled",  # boto3 follows a bucket to its region
    "s3.crt.",
    "s3.delete.batch-size",
    "s3.delete.num-threads",
    "s3.preload-client-enabled",
    "s3.resolve-region",
    "s3.staging-dir",  # Python's own temporary folder, TMPDIR
    "s3.use-arn-region-enabled",  # boto3's default
)

# Names or, with a dot at the end, beginnings of names; each with the way out. The first that fits is said.
REFUSED = {
    "s3.signer": "remote signing is not supported; ask the catalog for vended credentials",
    "s3.remote-signing-enabled": "remote signing is not supported; ask the catalog for vended credentials",
    "s3.access-grants.": "S3 Access Grants are not supported; use a role (s3.role-arn) or vended credentials",
    "s3.access-points.": "put the access point's alias in the bucket's place, in the table's location",
    "s3.acceleration-enabled": "set `s3: {use_accelerate_endpoint: true}` in the AWS profile",
    "s3.dualstack-enabled": "set AWS_USE_DUALSTACK_ENDPOINT in the environment",
    "s3.analytics-accelerator.": "it is a library of Java; take the property out",
    "s3.client-factory-impl": "it names a class of Java; take the property out",
    "s3.delete-enabled": "objects are deleted, not left to a lifecycle rule; take the property out",
    "s3.delete.tags.": "objects are deleted, not tagged; take the property out",
    "s3.retry-strategy-impl": "it names a class of PyArrow; set s3.retry.num-retries and s3.retry.max-wait-ms",
    "s3.write.table-tag-enabled": "write the tag out, as s3.write.tags.NAME",
    "s3.write.namespace-tag-enabled": "write the tag out, as s3.write.tags.NAME",
    "client.credentials-provider": "it names a class of Java; use s3.profile-name, s3.role-arn or boto3's chain",
    "client.factory": "it names a class of Java; take the property out",
    "client.assume-role.": "only its arn, session-name and external-id are known; put the others into an AWS profile",
}
_ON_IS_USUAL = frozenset({"s3.delete-enabled"})


class PropertyReading:
    """Properties being read, and what was wrong with them."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        """Begin; nothing is read yet."""
        self.properties = properties
        self.problems: list[str] = []
        self._known: set[str] = set()

    def text(self, *names: str) -> str | None:
        """Give the first of these that is set."""
        self._known.update(names)
        values = (self.properties.get(name) for name in names)
        return next((str(value) for value in values if value not in (None, "")), None)

    def prefixed(self, prefix: str) -> dict[str, str]:
        """Give all properties of a family by the rest of their names."""
        found = {name: value for name, value in self.properties.items() if name.startswith(prefix)}
        self._known.update(found)
        return {name.removeprefix(prefix): str(value) for name, value in found.items()}

    def flag(self, name: str) -> bool | None:
        """Read true or false; None if it is not set."""
        text = self.text(name)
        if text is None:
            return None
        if text.lower() not in TRUE + FALSE:
            self.problems.append(f"{name}: is neither true nor false")
        return text.lower() in TRUE

    def choice(self, *names: str, among: Mapping[str, Value]) -> Value | None:
        """Read one of the words of `among`, in any case; None if it is not set."""
        text = self.text(*names)
        if text is None:
            return None
        if text.lower() not in among:
            self.problems.append(f"{names[0]}: is none of {', '.join(among)}")
        return among.get(text.lower())

    def number(self, name: str, kind: Callable[[str], Value], default: Value, least: float) -> Value:
        """Read a number of at least `least`."""
        text = self.text(name)
        if text is None:
            return default
        try:
            value = kind(text)
        except ValueError:
            self.problems.append(f"{name}: is no number")
            return default
        if not value >= least:  # type: ignore[operator]  # int and float only; also refuses NaN
            self.problems.append(f"{name}: is below {least:g}")
            return default
        return value

    def finish(self) -> None:
        """Raise whatever was found, and every `s3.*` name that nobody asked for.

        Raises:
            ConfigurationError: all problems at once; names properties, and no value that may be secret.
        """
        self.problems += [problem for name in sorted(self.properties) if (problem := self._refusal(name))]
        if self.problems:
            raise ConfigurationError("; ".join(self.problems))

    def _refusal(self, name: str) -> str | None:
        if name in self._known or name.startswith(WITHOUT_EFFECT):
            return None
        way_out = next((said for refused, said in REFUSED.items() if _fits(name, refused)), None)
        if way_out is not None:
            return None if self._is_off(name) else f"{name}: {way_out}"
        if name.startswith("s3."):  # even one that says `false`: it may be a known name that is misspelt
            return f"{name}: this FileIO knows no such property and would not honour it; docs/s3.md has those it knows"
        return None

    def _is_off(self, name: str) -> bool:
        """Tell whether a feature that is refused is switched off; a signer is where remote signing is."""
        text = str(self.properties.get(name) or "").lower()
        if name.startswith("s3.signer") and self._is_said("s3.remote-signing-enabled", FALSE):
            return True
        return text in (("", *TRUE) if name in _ON_IS_USUAL else FALSE)

    def _is_said(self, name: str, words: tuple[str, ...]) -> bool:
        return name in self.properties and str(self.properties[name]).lower() in words


def _fits(name: str, refused: str) -> bool:
    return name.startswith(refused) if refused.endswith(".") else name == refused or name.startswith(f"{refused}.")
