"""YAML that remembers where everything stands, so that a message can name the line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from caesura.errors import ConfigError, UserError

Loc = tuple[str | int, ...]


@dataclass
class Source:
    """Plain data from a YAML file and the place of every key in it.

    Attributes:
        name: what messages call the whole: the file's path, or ``command line``.
        data: the mapping at the top.
        lines: line (from 1) of each key or list item, by its path from the top.
        overrides: path of each value that the command line set, and the option that set it.
    """

    name: str
    data: dict[str, Any]
    lines: dict[Loc, int] = field(default_factory=dict)
    overrides: dict[Loc, str] = field(default_factory=dict)

    def where(self, loc: Sequence[str | int]) -> str:
        """Where a path was written: an option, or file and line of the path or of its nearest written parent."""
        for length in range(len(loc), -1, -1):
            part = tuple(loc[:length])
            if part in self.overrides:
                return self.overrides[part]
            if part in self.lines:
                return f"{self.name}, line {self.lines[part]}" if part or not loc else self._above(tuple(loc))
        return self._above(tuple(loc))

    def _above(self, loc: Loc) -> str:
        """Where something was written that only exists because an option set a value inside it."""
        inside = (option for at, option in self.overrides.items() if loc and at[: len(loc)] == loc)
        return next(inside, f"{self.name}, line {self.lines[()]}" if () in self.lines else self.name)

    def fault(self, loc: Sequence[str | int], message: str) -> str:
        """One line of a ConfigError: place, key, what is wrong."""
        key, place = dotted(loc), self.where(loc)
        named = not key or key in place.split()
        return f"{place}: {message}" if named else f"{place}: {key}: {message}"

    def override(self, loc: Loc, value: Any, option: str) -> None:
        """Set the value at ``loc``, making mappings on the way; ``option`` is how messages will name it.

        Raises:
            ConfigError: the path runs through something that holds no keys, or through a list item that is not there.
        """
        at: Any = self.data
        for depth, part in enumerate(loc[:-1]):
            if isinstance(at, dict):
                if not isinstance(at.get(part), dict | list):
                    at[part] = {}
                at = at[part]
            else:
                at = at[self._index(at, part, loc[: depth + 1], option)]
                if not isinstance(at, dict | list):
                    raise ConfigError([f"{option}: {dotted(loc[: depth + 1])} holds {at!r}, which has no keys"])
        if isinstance(at, dict):
            at[loc[-1]] = value
        else:
            at[self._index(at, loc[-1], loc, option)] = value
        normal = tuple(int(p) if isinstance(p, str) and p.isdigit() else p for p in loc)
        self.overrides[normal] = option

    @staticmethod
    def _index(at: list[Any], part: str | int, loc: Loc, option: str) -> int:
        if str(part).isdigit() and int(part) < len(at):
            return int(part)
        raise ConfigError([f"{option}: {dotted(loc)}: the list has items 0 to {len(at) - 1}; there is no {part!r}"])


def dotted(loc: Sequence[str | int]) -> str:
    """A path for a person: ``systems[1].engine``."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_yaml(path: Path) -> Source:
    """Read a YAML file whose top is a mapping.

    Raises:
        UserError: the file cannot be read.
        ConfigError: not YAML, a key twice, an empty file, or something else than a mapping at the top.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file{_neighbours(path)}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a YAML file{_neighbours(path / 'x')}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Source:
    """Read YAML from a text, as ``read_yaml`` does from a file; messages call it ``name``."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_fault(error, text, name)]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{name}: not YAML: {' '.join(str(error).split())}"]) from None
    if node is None:
        raise ConfigError([f"{name}: the file is empty"])
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError([f"{name}, line {node.start_mark.line + 1}: expected 'key: value' lines at the top"])
    source = Source(name, {})
    source.lines[()] = node.start_mark.line + 1
    source.data = _Build(loader, source).mapping(node, (), ())
    return source


class _Build:
    """Turns YAML nodes into plain data and notes the line of each key."""

    def __init__(self, loader: yaml.SafeLoader, source: Source) -> None:
        self.loader = loader
        self.source = source

    def value(self, node: yaml.Node, loc: Loc, inside: tuple[int, ...]) -> Any:
        if id(node) in inside:
            self._fail(node, loc, "a YAML alias that contains itself")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, loc, inside)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, child in enumerate(node.value):
                self.source.lines[(*loc, index)] = child.start_mark.line + 1
                items.append(self.value(child, (*loc, index), (*inside, id(node))))
            return items
        try:
            return self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            reason = getattr(error, "problem", None) or error
            self._fail(node, loc, f"{node.value!r} cannot be read: {reason}")

    def mapping(self, node: yaml.MappingNode, loc: Loc, inside: tuple[int, ...]) -> dict[str, Any]:
        first: dict[str, int] = {}
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
                self._fail(key_node, loc, "a key must be a plain word")
            if key in first:
                self._fail(key_node, (*loc, key), f"this key was already given in line {first[key]}; keep one of them")
            first[key] = line
            self.source.lines[(*loc, key)] = line
            data[key] = self.value(value_node, (*loc, key), (*inside, id(node)))
        return data

    def _fail(self, node: yaml.Node, loc: Loc, message: str) -> NoReturn:
        place = f"{self.source.name}, line {node.start_mark.line + 1}"
        raise ConfigError([f"{place}: {dotted(loc)}: {message}" if loc else f"{place}: {message}"])


def _syntax_fault(error: yaml.MarkedYAMLError, text: str, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f"{name}: not YAML: {error.problem}"
    line = mark.line + 1
    lines = text.splitlines()
    if mark.line < len(lines) and "\t" in lines[mark.line]:
        return f"{name}, line {line}: a tab; YAML wants spaces"
    context = f" {error.context}" if error.context else ""
    return f"{name}, line {line}: not YAML: {error.problem}{context}"


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" (nor a folder {folder})"
    close = sorted(p.name for p in folder.glob("*.y*ml"))[:8]
    return f"; {folder} holds {', '.join(close)}" if close else ""
