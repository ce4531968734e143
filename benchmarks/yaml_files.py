"""YAML that people write, read with the line of each thing in it, and refused in one sentence that names the line.

What a file may hold is bounded before it is read: PyYAML reads some 100 kB per second, and aliases multiply.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.parameters import InvalidParameter
from benchmarks.plain_text import plain

LARGEST = 1_000_000
"""Bytes of a file."""
MOST = 100_000
"""Keys and values, those of aliases counted wherever they are used."""
DEEPEST = 20
"""Levels of lists and mappings."""
LARGEST_INTEGER = 2**63 - 1


class Document(NamedTuple):
    """lines: path such as "grids[0].tasks" → line, counted from 1."""

    text: str
    content: Any
    lines: Mapping[str, int]


def read(path: Path) -> Document:
    """The file's text, and what it says. Raises InvalidParameter."""
    if path.stat().st_size > LARGEST:
        raise InvalidParameter(f"the file has {path.stat().st_size:,} bytes, more than {LARGEST:,}")
    written = path.read_bytes()
    try:
        text = written.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = written.count(b"\n", 0, error.start) + 1
        raise InvalidParameter(f"line {line}: not UTF-8 text; save the file in that encoding") from error
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        content = None if node is None else loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        character = error.character if isinstance(error.character, int) else ord(error.character)
        where = text.count("\n", 0, error.position) + 1
        raise InvalidParameter(f"line {where}: the character U+{character:04X} is not allowed") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        begun = f"line {mark.line + 1}: " if mark else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise InvalidParameter(f"{begun}not valid YAML: {plain(problem, 200)}") from error
    lines: dict[str, int] = {}
    if node is not None:
        _note_lines(node, "", lines)
    return Document(text, content, lines)


def _note_lines(node: yaml.Node, path: str, lines: dict[str, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = f"{path}.{key.value}" if path else str(key.value)
            lines[inner] = key.start_mark.line + 1
            _note_lines(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            lines[f"{path}[{number}]"] = value.start_mark.line + 1
            _note_lines(value, f"{path}[{number}]", lines)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader within bounds. It refuses a key that is written twice, of which YAML would keep the last."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._n_nodes = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        is_alias = isinstance(event, yaml.AliasEvent)
        before = self._n_nodes
        self._depth += 1
        self._n_nodes += 1
        if self._depth > DEEPEST:
            raise _refused(event.start_mark, f"nested deeper than {DEEPEST} levels")
        node = super().compose_node(parent, index)
        if is_alias and id(node) not in self._sizes:
            raise _refused(event.start_mark, f"*{event.anchor} stands within itself")
        self._n_nodes += self._sizes[id(node)] if is_alias else 0
        if self._n_nodes > MOST:
            raise _refused(
                event.start_mark, f"more than {MOST:,} keys and values, aliases counted wherever they are used"
            )
        self._sizes[id(node)] = self._n_nodes - before
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (InvalidParameter, yaml.YAMLError):
            raise
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            shown = plain(str(node.value), 60)
            raise _refused(node.start_mark, f"{shown!r} cannot be read as {kind}; write a text in quotes") from error
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise _refused(node.start_mark, "an integer of more than 64 bits")
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        if not isinstance(node, yaml.MappingNode):
            raise _refused(node.start_mark, "a mapping belongs here")
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise _refused(key_node.start_mark, f"{plain(str(key), 60)!r} is written twice")
            seen.add(key if isinstance(key, Hashable) else None)
        return super().construct_mapping(node, deep=deep)


def _refused(mark: yaml.Mark, problem: str) -> InvalidParameter:
    return InvalidParameter(f"line {mark.line + 1}: {problem}")
