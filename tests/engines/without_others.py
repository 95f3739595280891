"""Import modules in a Python that has named libraries, what these need, and nothing else; run as a script.

python without_others.py MODULE,… LIBRARY…
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# The engine brings itself, and its Python package needs no other.
_ENGINE = ("pyspark", "py4j")


class Hidden(MetaPathFinder):
    """Finds nothing below some names, whatever is installed."""

    def __init__(self, names: set[str]) -> None:
        """Take the top names."""
        self.names = names

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Refuse what is hidden, and leave the rest to the other finders."""
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def needed(libraries: Sequence[str]) -> set[str]:
    """Give distributions with all that they require, extras aside."""
    found: set[str] = set()
    queue = list(libraries)
    while queue:
        name = canonicalize_name(queue.pop())
        if name in found:
            continue
        found.add(name)
        try:
            wants = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:  # of another platform or Python
            continue
        queue += [want.name for want in wants if want.marker is None or want.marker.evaluate({"extra": ""})]
    return found


def main(modules: Sequence[str], libraries: Sequence[str]) -> None:
    """Hide all other distributions and import."""
    there = needed([*libraries, *_ENGINE]) | {"lakehouse-pipeline"}
    tops = packages_distributions().items()
    hidden = {top for top, names in tops if not there & {canonicalize_name(name) for name in names}}
    for name in [name for name in sys.modules if name.partition(".")[0] in hidden]:
        del sys.modules[name]
    sys.meta_path.insert(0, Hidden(hidden))
    for module in modules:
        importlib.import_module(module)


if __name__ == "__main__":
    main(sys.argv[1].split(","), sys.argv[2:])
