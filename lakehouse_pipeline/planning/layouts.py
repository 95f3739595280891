"""Layouts: where the entropy stands in a table's keys. Which range takes a key is `s3_scaling`'s to say."""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

DIGIT = "*"  # in a template: one character of the hash


@dataclass(frozen=True)
class Layout:
    """Keys with a hash in them, whose digits are uniform.

    Attributes:
        name: for reports.
        alphabet: the digits.
        template: a key, with `*` for each digit of its hash.
        lane_digits: leading digits by which our client's rate control tells limits apart (`object_store.lanes`).
    """

    name: str
    alphabet: str
    template: str
    lane_digits: int = 0

    def measure(self, prefix: str) -> float:
        """Give the share of all keys that begin with a prefix, 0 to 1; a prefix of other keys has none."""
        if len(prefix) > len(self.template):
            return 0.0
        share = 1.0
        for character, place in zip(prefix, self.template, strict=False):
            if place == DIGIT:
                share = share / len(self.alphabet) if character in self.alphabet else 0.0
            elif place != character:
                return 0.0
        return share

    def lanes(self) -> list[str]:
        """Give the prefix of each lane's keys."""
        if not self.lane_digits:
            return [""]
        ends = [place for place, character in enumerate(self.template) if character == DIGIT]
        pattern = self.template[: ends[self.lane_digits - 1] + 1]
        made = []
        for digits in itertools.product(self.alphabet, repeat=self.lane_digits):
            left = iter(digits)
            made.append("".join(next(left) if character == DIGIT else character for character in pattern))
        return made

    def keys(self, prefix: str, count: int, rng: "np.random.Generator") -> list[str]:
        """Draw keys that begin with a prefix."""
        rest = self.template[len(prefix) :]
        drawn = rng.integers(len(self.alphabet), size=(count, rest.count(DIGIT)))
        made = []
        for row in drawn:
            digits = iter(row)
            made.append(prefix + "".join(self.alphabet[next(digits)] if at == DIGIT else at for at in rest))
        return made


# Iceberg since 1.7, and ours: 20 binary digits (core, LocationProviders.java).
BASE_2 = Layout("base-2", "01", "data/****/****/****/********/f", lane_digits=3)
# Iceberg of before: 4 bytes as 6 digits of base64Url (apache/iceberg PR 7128). The last holds two bits only, which no
# split ever reaches.
BASE_64 = Layout("base-64", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", "data/******/f")
# Hive's folders, and Iceberg's without object storage: hours that run together are neighbours, and none of a split's
# boundaries tells their files apart for long.
BY_HOUR = Layout("hour by hour", "0", "data/hour/f")
