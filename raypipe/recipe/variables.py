"""`${NAME}` in recipes: variables of the environment, but none that holds a secret.

A recipe names folders of data without a machine's path. A recipe from elsewhere must not read keys
and send them to a host of its author's, as a part of an engine's address, say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from raypipe.config import ConfigError
from raypipe.storage.masking import mask

OWN = "RAYPIPE_"
"""Variables of this prefix are meant for recipes."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_HOST = re.compile(r"://(?:[^/?#]*@)?([^/?#:@]+)")
_SECRET = re.compile("KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL", re.IGNORECASE)


def expand_variables(tree: Any, where: str) -> Any:
    """`tree` with `${NAME}` and `${NAME:-default}` replaced in every string by the variables of
    this process's environment, so that a recipe names a folder of data without a machine's path.

    Args:
        where: the dotted path of `tree` in the recipe.

    Raises:
        ConfigError: a variable is not set and has no default, or may hold a secret; then the error
            says which host it would have gone to.
    """
    return _expanded(tree, where, ())


def _expanded(tree: Any, where: str, around: tuple[Any, ...]) -> Any:
    """`expand_variables` of a part of the tree.

    Args:
        around: the parts that this one stands in, the innermost first.
    """
    if isinstance(tree, Mapping):
        inside = (tree, *around)
        return {k: _expanded(v, f"{where}.{k}".lstrip("."), inside) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_expanded(item, where, (tree, *around)) for item in tree]
    if not isinstance(tree, str):
        return tree

    def value(variable: re.Match[str]) -> str:
        name, default = variable.groups()
        content = os.environ.get(name)
        if reason := _refused(name, content or "", where):
            raise ConfigError(
                f"{where}: ${{{name}}} would go to {_destination((tree, *around))}, and {reason}; "
                f"if that may have it, export it under a name that begins with {OWN}"
            )
        if content is not None:
            return content
        if default is None:
            raise ConfigError(f"{where}: the environment variable {name} is not set; export {name}")
        return os.path.expanduser(default)

    return _VARIABLE.sub(value, tree)


def _refused(name: str, content: str, where: str) -> str:
    """Why a recipe may not read a variable; empty if it may."""
    if name.startswith(OWN):
        return ""
    if _SECRET.search(name):
        return "by its name it holds a secret"
    if (
        where not in ("storage", "tracking", "tracking.uri")
        and "://" in content
        and mask(content) != content
    ):
        return "it holds an address with a secret"
    return ""


def _destination(parts: tuple[Any, ...]) -> str:
    """The host that what stands in the first of these parts is sent to."""
    for part in parts:
        for text in _texts(part):
            if host := _HOST.search(_VARIABLE.sub("", text)):
                return host[1]
    return "whoever sees the tracked run"


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from _texts(item)
    elif isinstance(tree, list):
        for item in tree:
            yield from _texts(item)
