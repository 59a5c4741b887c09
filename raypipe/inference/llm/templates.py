"""The variables that a model's chat template reads: `enable_thinking` of reasoning models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError

NO_THINKING: Mapping[str, Any] = {"enable_thinking": False}
"""What templates of Qwen3, GLM and others read; other templates do not mind it."""
_NAMES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_OURS = ("messages", "conversation", "tokenize", "add_generation_prompt", "chat_template")
_READ = 64 << 20
"""Bytes of a file that are searched: in a GGUF file the template stands before the weights."""


def template_files(folder: Path) -> list[Path]:
    """The files of a model's folder that may hold its chat template."""
    return [path for name in _NAMES if (path := folder / name).is_file()]


def read_kwargs(kwargs: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any]:
    """Those of the variables that a template in the files names; all where there is no file."""
    if not files:
        return dict(kwargs)
    texts = [_beginning(path) for path in files] if kwargs else []
    return {name: value for name, value in kwargs.items() if _is_named(name, texts)}


def check_template_kwargs(kwargs: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Refuse a variable that the template does not read, unless it only switches thinking off.

    Raises:
        ConfigError: the recipe names such a variable.
    """
    read = read_kwargs(kwargs, files)
    for name in kwargs:
        if name in _OURS:
            raise ConfigError(
                f"engine: chat_template_kwargs.{name}: raypipe sets it itself; take it out"
            )
        if name not in read and kwargs[name] != NO_THINKING.get(name):
            raise ConfigError(
                f"engine: chat_template_kwargs.{name}: expected a variable of the model's chat "
                f"template, found none of that name in {', '.join(path.name for path in files)}; "
                "correct the name or take it out"
            )


def _is_named(name: str, texts: Sequence[bytes]) -> bool:
    word = re.compile(rb"\b" + re.escape(name.encode()) + rb"\b")
    return any(word.search(text) for text in texts)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_READ)
