"""YAML as recipes and overrides have it: safe, without keys given twice, and of bounded size."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from raypipe.config import ConfigError
from raypipe.storage.address import shown_value
from raypipe.storage.files import read_bounded
from raypipe.storage.masking import without_secrets

LARGEST_FILE = 1 << 20
"""Bytes of a recipe; the longest that ships has 6,715."""
MOST_VALUES = 100_000
"""Values of a recipe with its aliases filled in: ten lines of them can stand for billions."""
DEEPEST = 50
"""Levels of mappings and lists within each other."""
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-5 as a number, which YAML 1.1 takes for a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:
    """Safe YAML, with 1e-5 read as a number.

    Raises:
        YAMLError: it is not YAML.
        ConfigError: a mapping has a key twice, it is too large or too deep, or a value is none.
    """
    loader = _Loader(text)
    try:
        if (root := loader.get_single_node()) is None:
            return None
        _Check(loader).size(root)
        return loader.construct_document(root)
    except RecursionError:
        raise _too_deep("") from None
    except ConfigError:
        raise
    except ValueError as error:  # a date without such a day, a number of thousands of digits
        raise ConfigError(f"a value is not valid YAML ({error}); put it in quotes") from None
    finally:
        loader.dispose()


def read_yaml(path: Path) -> Any:
    """What a file holds.

    Raises:
        ConfigError: the file is not UTF-8 or not YAML, larger than a recipe, or as `parse_yaml`.
    """
    remedy = "or move parts into a file that `base` names"
    data = read_bounded(path, "a recipe", LARGEST_FILE, remedy)
    try:
        return parse_yaml(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        raise ConfigError(
            f"{path}, line {line}: expected UTF-8, found the byte {byte:#04x}; convert the file, "
            "for example with iconv"
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {without_secrets(str(error))}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


class _Check:
    """Looks at a document before values are made of it: YAML lets the last of equal keys win."""

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self._sizes: dict[yaml.Node, tuple[int, int] | None] = {}

    def size(self, node: yaml.Node) -> tuple[int, int]:
        """(values, levels) that a node stands for, with its aliases filled in.

        Raises:
            ConfigError: there are too many of either, or a key is given twice.
        """
        if not isinstance(node, yaml.CollectionNode):
            return 1, 0
        if node not in self._sizes:
            self._sizes[node] = None  # while its parts are measured
            if isinstance(node, yaml.MappingNode):
                self._check_keys(node)
            pairs = node.value if isinstance(node, yaml.MappingNode) else zip(node.value)
            parts = [self.size(part) for pair in pairs for part in pair]
            values, levels = zip(*parts, strict=True) if parts else ((0,), (0,))
            self._sizes[node] = 1 + sum(values), 1 + max(levels)
        line = f", line {node.start_mark.line + 1}"
        if (size := self._sizes[node]) is None or size[1] > DEEPEST:
            raise _too_deep(line)
        if size[0] > MOST_VALUES:
            raise ConfigError(
                f"expected at most {MOST_VALUES:,} values with aliases filled in, found "
                f"{size[0]:,}{line}; write the recipe without these aliases"
            )
        return size

    def _check_keys(self, mapping: yaml.MappingNode) -> None:
        first: dict[Hashable, yaml.Node] = {}
        for node, _ in mapping.value:
            if not isinstance(node, yaml.ScalarNode):
                continue  # refused when values are made
            merge = node.tag == _MERGE  # its keys give way to those beside it
            key = node.value if merge else self._loader.construct_object(node)
            if first.setdefault(key, node) is not node:
                raise ConfigError(
                    f"the key {shown_value(key)} is given twice, {_places(first[key], node)}; keep "
                    "one of them"
                )


def _too_deep(where: str) -> ConfigError:
    return ConfigError(
        f"expected at most {DEEPEST} levels of mappings and lists, found more{where}; write fewer"
    )


def _places(first: yaml.Node, second: yaml.Node) -> str:
    """Where two nodes begin; one line may hold both."""
    lines = [node.start_mark.line + 1 for node in (first, second)]
    if lines[0] != lines[1]:
        return f"in lines {lines[0]} and {lines[1]}"
    columns = [node.start_mark.column + 1 for node in (first, second)]
    return f"in line {lines[0]}, columns {columns[0]} and {columns[1]}"
