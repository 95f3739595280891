"""Variables in the values of a file: `${NAME}`, and no other form.

The environment is a parameter. A variable's value may be a secret: no message shows one.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from lakehouse_pipeline.config.problems import KeyPath, Problem
from lakehouse_pipeline.config.yaml_source import Document, Refused

_VARIABLE = re.compile(r"\$\{([^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORMS = "only ${NAME} is expanded, and a value that holds '${' itself has to come from a variable"


def expand(
    document: Document,
    environ: Mapping[str, str],
    selects: Callable[[KeyPath], bool],
    escape: Callable[[str], str] = str,
) -> Document:
    """Put variables in the place of `${NAME}` in the values that `selects` names.

    Args:
        document: as it was read.
        environ: the variables.
        selects: says of a value's path whether variables are expanded in it.
        escape: applied to a variable's value before it is put in.
    """
    problems: list[Problem] = []
    variables: dict[KeyPath, tuple[str, str]] = {}

    def at(value: object, path: KeyPath) -> object:
        if isinstance(value, dict):
            return {key: at(child, (*path, key)) for key, child in value.items()}
        if isinstance(value, list):
            return [at(child, (*path, n)) for n, child in enumerate(value)]
        if not isinstance(value, str) or not selects(path):
            return value
        found = [document.problem(path, message) for message in _problems(value, environ)]
        problems.extend(found)
        if found:
            return Refused(value)
        text = _VARIABLE.sub(lambda match: escape(environ[match[1]]), value)
        if text != value:
            variables[path] = (text, value)
        return text

    if document.tree is None:
        return document
    tree = {key: at(value, (key,)) for key, value in document.tree.items()}
    known = {**document.variables, **variables}
    return replace(document, tree=tree, problems=(*document.problems, *problems), variables=known)


def _problems(text: str, environ: Mapping[str, str]) -> Iterator[str]:
    for match in _VARIABLE.finditer(text):
        name = match[1]
        if not _NAME.fullmatch(name) or not match[0].endswith("}"):
            yield f"'${{' begins something that is no variable; {_FORMS}"
        elif name not in environ:
            yield f"the variable {name} is not set; set it, or write the value"
