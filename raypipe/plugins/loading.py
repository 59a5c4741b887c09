"""Loads `my_package.module:Class`: checked before and after its import, the same on every worker.

A loaded class is the user's own with its name as `type` and its code in the digest. Instances are
pickled by name: the process that unpickles one loads the package, and compares its bytes.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import platform
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ClassVar, Literal, cast

from pydantic import create_model

from raypipe.config import Config, ConfigError, nearest
from raypipe.names import quoted, shortened
from raypipe.plugins.packages import (
    allow,
    check_allowed,
    code_of,
    find_package,
    import_from,
    parent_folder,
)

_NAME = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<cls>[^\W\d]\w*)")
NAME_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""Of `my_package.module:Class`, for editors."""


@dataclass(frozen=True)
class Origin:
    """Where a plug-in comes from."""

    name: str
    """`my_package.module:Class`."""
    code: str
    """Digest of the modules that it loads."""
    folder: str
    """Where its package was found; no part of a digest."""


class PlugIn(Config):
    """What a class of the user's gets beside its own: its name, its code, how it travels."""

    plugin_origin: ClassVar[Origin]

    def semantic(self) -> dict[str, Any]:
        """Also the code, so that artifacts of other code are not used again."""
        return {**super().semantic(), "code": self.plugin_origin.code}

    def __reduce__(self) -> Any:
        return revived, (self.plugin_origin,), self.__getstate__()


def is_plugin_name(value: Any) -> bool:
    """Whether a `type` names a class of the user's rather than one of raypipe's."""
    return isinstance(value, str) and ":" in value


def plugin_class(name: str, base: type[Config], kind: str, verbs: Sequence[str] = ()) -> Any:
    """The class that a recipe names.

    Args:
        base: what it must extend.
        kind: what it must be, in words.
        verbs: methods of which it must have one of its own.

    Raises:
        ConfigError: the name is none, its package is not allowed or not there, the import fails, or
            the class is none of that kind.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise ConfigError(f"expected a name such as my_package.module:Class, found {quoted(name)}")
    check_allowed(parts["module"].partition(".")[0])
    loaded = _loaded(str(name))
    _check_kind(loaded, base, kind, verbs)
    return loaded


def _check_kind(cls: type[Config], base: type[Config], kind: str, verbs: Sequence[str]) -> None:
    contract = f"{base.__module__}:{base.__name__}"
    if not issubclass(cls, base):
        own = ", ".join(b.__name__ for b in cls.__mro__[2].__bases__)
        raise ConfigError(
            f"expected a {kind}, that is a subclass of {contract}, found a class of {own}"
        )
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise ConfigError(f"expected a {kind} with {', '.join(missing)}, found none; write it")
    if verbs and all(getattr(cls, verb) is getattr(base, verb) for verb in verbs):
        raise ConfigError(
            f"expected a {kind} with {' or '.join(verbs)} of its own, found none; see {contract}"
        )


@functools.cache
def _loaded(name: str) -> type[Config]:
    """The class, checked to be a configuration; errors are not remembered."""
    module, _, cls = name.partition(":")
    package = module.partition(".")[0]
    spec = find_package(package)
    if spec is None:
        raise ConfigError(
            f"there is no package {package} in {os.getcwd()} or where Python looks; install it, "
            "set PYTHONPATH, or run the command in the folder that holds it"
        )
    place = parent_folder(spec)
    origin = Origin(name, code_of(module, spec), place)
    import_from(package, place)
    own = _class_in(_imported(module, spec), cls, module)
    if taken := own.model_fields.keys() & inspect.get_annotations(PlugIn).keys():
        raise ConfigError(f"{name} has a field {min(taken)}, which is raypipe's; rename it")
    try:
        made = create_model(
            own.__name__,
            __base__=(PlugIn, own),
            __module__=own.__module__,
            __doc__=own.__doc__,
            type=(Literal[name], name),  # type: ignore[valid-type]
        )
    except Exception as error:  # a field of its own that has a name of raypipe's
        raise ConfigError(f"{name} cannot be a choice: {type(error).__name__}: {error}") from None
    made.plugin_origin = origin
    return cast(type[Config], made)


def _imported(module: str, package: ModuleSpec) -> ModuleType:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise ConfigError(
                f"there is no module {error.name} in {parent_folder(package)}; name one that is"
            ) from None
        raise _failed(module, error) from None
    except (Exception, SystemExit) as error:
        raise _failed(module, error) from None
    return found


def _failed(module: str, error: BaseException) -> ConfigError:
    """The error of a module that raises when it is imported, with the last line of its own."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "importlib" not in f.filename and __file__ != f.filename]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
    text = shortened(" ".join(str(error).split()), 300)
    return ConfigError(f"{module} cannot be imported: {type(error).__name__}: {text}{where}")


def _class_in(module: ModuleType, cls: str, name: str) -> type[Config]:
    found = getattr(module, cls, None)
    if found is None:
        classes = [k for k, v in vars(module).items() if inspect.isclass(v) and k[0] != "_"]
        own = [k for k in classes if vars(module)[k].__module__ == name]
        place = getattr(module, "__file__", None) or "a folder without __init__.py"
        raise ConfigError(f"{name} ({place}) has no class {cls!r}{nearest(cls, own)}")
    if not (inspect.isclass(found) and issubclass(found, Config)):
        what = f"a class of {found.__mro__[1].__name__}" if inspect.isclass(found) else repr(found)
        raise ConfigError(
            f"expected a class that extends one of raypipe's, found {shortened(what)}; "
            "docs/plug-ins.md has an example of each kind"
        )
    return found


# --- on workers -----------------------------------------------------------------------------------


def revived(origin: Origin) -> Any:
    """An instance without state of the class that a pickle names, in the process that reads it.

    Raises:
        ConfigError: the package is not here, or has other bytes; names package, machine and remedy.
    """
    package = origin.name.partition(":")[0].partition(".")[0]
    if package not in sys.modules and os.path.isdir(origin.folder):
        import_from(package, origin.folder)
    remedy = (
        f"bring {package} to every node: run from the folder that holds it, or give `ray job "
        "submit` that folder as --working-dir (or py_modules), or install it there"
    )
    worker = f"worker on {platform.node()} (process {os.getpid()})"
    try:
        cls: Any = _loaded(origin.name)
    except ConfigError as error:
        raise ConfigError(f"{worker}: {origin.name}: {error}; {remedy}") from None
    allow(package)  # the driver was allowed to
    if cls.plugin_origin.code != origin.code:
        raise ConfigError(
            f"{worker}: {origin.name}: expected the code that the job was planned with, found "
            f"other bytes in {cls.plugin_origin.folder}; if the package was edited, run the "
            f"command again, else {remedy}"
        )
    return cls.__new__(cls)
