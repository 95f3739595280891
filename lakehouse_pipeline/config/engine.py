"""Engines by their addresses in lakehouse.yaml: which there are, told in one place.

What each can do, and how a session on it starts, is elsewhere.
"""

import re
from collections.abc import Mapping
from typing import Literal

EngineKind = Literal["local", "cluster", "connect", "sail"]

_ADDRESSES: Mapping[EngineKind, re.Pattern[str]] = {
    "local": re.compile(r"local\[(\*|[1-9][0-9]{0,3})\]"),
    "cluster": re.compile(r"yarn|(spark|k8s)://.*"),
    "connect": re.compile(r"sc://.*"),
    "sail": re.compile("sail"),
}


def kind_of_engine(address: str) -> EngineKind | None:
    """Tell the kind of an engine from its address, whether or not a host stands in it; None for what is no engine's."""
    return next((kind for kind, pattern in _ADDRESSES.items() if pattern.fullmatch(address)), None)
