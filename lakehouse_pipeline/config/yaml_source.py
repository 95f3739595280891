"""YAML text to a plain tree in which every scalar is text, with the line of every key.

`no` stays a column's name and `2013-01-01` stays text. What makes YAML surprising (duplicate keys, anchors, aliases,
merge keys, tags, several documents, empty values) is refused. Nothing here knows what the keys mean.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from lakehouse_pipeline.config.problems import KeyPath, Problem, key_text

_DEPTH = 20  # levels of nesting; our files have four, and the composer recurses
_QUOTE = "quote a value that holds special characters, and indent with spaces"


@dataclass(frozen=True)
class Refused:
    """Stands where a value was refused already, so that nothing more is said about it.

    Attributes:
        raw: the value as it is written in the file.
    """

    raw: str = ""


@dataclass(frozen=True)
class Document:
    """One file.

    Attributes:
        label: the file as messages name it.
        tree: mappings, lists, text and `Refused`; None if the file is no YAML mapping at all.
        lines: the line of every key and list item, from 1; the root is `()`.
        problems: what was refused so far.
        variables: of values that variables were put into, the text, and what is written in the file in its place.
    """

    label: str
    tree: Mapping[str, object] | None = field(default=None, repr=False)  # may hold values of variables
    lines: Mapping[KeyPath, int] = field(default_factory=dict, repr=False)
    problems: tuple[Problem, ...] = ()
    variables: Mapping[KeyPath, tuple[str, str]] = field(default_factory=dict, repr=False)

    def problem(self, path: KeyPath, message: str) -> Problem:
        """Say what is wrong at `path`, on its line or on that of its nearest parent, with variables as written."""
        for place, (text, written) in self.variables.items():
            if text and place[: len(path)] == path[: len(place)]:
                message = message.replace(repr(text), repr(written)).replace(text, written)
        nearest = next((path[:n] for n in range(len(path), 0, -1) if path[:n] in self.lines), ())
        return Problem(self.label, self.lines.get(nearest, 1), key_text(path), message)


def read_document(file: Path, label: str) -> Document:
    """Read a file; what is wrong with it stands in the document's problems."""
    try:
        data = file.read_bytes()
    except OSError as error:
        return Document(label, problems=(Problem(label, 1, "", f"cannot be read: {error.strerror}"),))
    try:
        return parse_document(data.decode("utf-8-sig"), label)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Document(label, problems=(Problem(label, line, "", "is not UTF-8; save the file as UTF-8"),))


def parse_document(text: str, label: str) -> Document:
    """Read the text of a file; what is wrong with it stands in the document's problems."""
    try:
        problems = tuple(_surprises(text, label))
        root = None if problems else yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        return Document(label, problems=(_syntax_problem(error, text, label),))
    if problems:
        return Document(label, problems=problems)
    if not isinstance(root, yaml.MappingNode):
        what = "is empty" if root is None else "is not a mapping"
        return Document(label, problems=(Problem(label, 1, "", f"{what}; write keys and values, `key: value`"),))
    return _Walk(label).document(root)


def _surprises(text: str, label: str) -> Iterator[Problem]:
    """Refuse what a tree of text cannot say; these are visible in the parser's events only."""
    documents = depth = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        message = _surprise(event)
        if depth > _DEPTH:
            message = f"more than {_DEPTH} levels of nesting; quote a value that holds brackets"
        elif documents > 1:
            message = "a second document begins; keep one per file and take '---' out"
        if message:
            yield Problem(label, _line(event), "", message)
        if depth > _DEPTH or documents > 1:
            return


def _surprise(event: yaml.Event) -> str:
    if isinstance(event, yaml.AliasEvent):
        return f"the alias *{event.anchor} is not supported; write the value out, or quote it"
    if isinstance(event, yaml.NodeEvent) and event.anchor:
        return f"the anchor &{event.anchor} is not supported; take it out, or quote the value"
    if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
        return f"the tag {event.tag} is not supported; take it out, or quote the value"
    return ""


def _syntax_problem(error: yaml.YAMLError, text: str, label: str) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        said = ", ".join(part for part in (error.context, error.problem) if part)
        return Problem(label, error.problem_mark.line + 1, "", f"is not YAML: {said}; {_QUOTE}")
    position = getattr(error, "position", 0)  # yaml.reader.ReaderError has no mark
    line = text.count("\n", 0, position) + 1
    return Problem(label, line, "", "holds a control character; take it out")


class _Walk:
    """One walk over the nodes of a file, noting lines and problems on its way."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._lines: dict[KeyPath, int] = {}
        self._problems: list[Problem] = []

    def document(self, root: yaml.MappingNode) -> Document:
        """Walk the whole file."""
        self._lines[()] = 1
        tree = self._mapping(root, ())
        return Document(self._label, tree, self._lines, tuple(self._problems))

    def _value(self, node: yaml.Node, path: KeyPath) -> object:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(child, (*path, n)) for n, child in enumerate(node.value)]
        if _is_plain(node, ""):
            self._refuse(self._lines[path], path, 'has no value; write one ("" for empty text), or take it out')
            return Refused()
        return str(node.value)

    def _item(self, node: yaml.Node, path: KeyPath) -> object:
        self._lines[path] = _line(node)
        return self._value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        tree: dict[str, object] = {}
        for key_node, value_node in node.value:
            if (key := self._key(key_node, path)) is None:
                continue
            here = (*path, key)
            if key in tree:
                lines = f"{self._lines[here]} and {_line(key_node)}"
                self._refuse(_line(key_node), here, f"stands twice, on lines {lines}; keep one")
                continue
            self._lines[here] = _line(key_node)
            tree[key] = self._value(value_node, here)
        return tree

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        message = _key_problem(node)
        if message:
            self._refuse(_line(node), path, message)
            return None
        return str(node.value)

    def _refuse(self, line: int, path: KeyPath, message: str) -> None:
        self._problems.append(Problem(self._label, line, key_text(path), message))


def _key_problem(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return "a key is a list or a mapping; write text, or quote a value that begins with { or ["
    if _is_plain(node, ""):
        return "a key is empty; write its name before the colon"
    if _is_plain(node, "<<"):
        return "merge keys (<<) are not supported; write the keys out"
    return ""


def _is_plain(node: yaml.Node, text: str) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value == text


def _line(what: yaml.Node | yaml.Event) -> int:
    return what.start_mark.line + 1 if what.start_mark else 1
