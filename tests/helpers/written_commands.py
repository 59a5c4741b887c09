"""Code of Markdown files: blocks, commands with their words, recipes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_YAML = re.compile(r"(#.*\n)*[a-z_.]+:( |$)", re.MULTILINE)
_FILE = re.compile(r"# ([\w-]+\.yaml)\b")
PROGRAMS = ("raypipe", "python", "python3", "make", "pip", "ray", "export")


def blocks(text: str) -> list[str]:
    """Code that is fenced, or indented by four blanks behind an empty line."""
    fenced = [match[2] for match in _FENCE.finditer(text)]
    indented: list[list[str]] = []
    before = ""
    for line in _FENCE.sub("\n", text).splitlines():
        if line.startswith("    ") and (not before.strip() or (indented and before[:4] == "    ")):
            if not before.strip():
                indented.append([])
            indented[-1].append(line[4:])
        before = line
    return fenced + ["\n".join(lines) + "\n" for lines in indented]


def recipes(text: str) -> Iterator[tuple[str, str]]:
    """(file name, YAML) of every block that is a recipe or a part of one.

    The first line may name the file in a comment; a block without one is called part-N.yaml.
    """
    for number, block in enumerate(blocks(text)):
        if _YAML.match(block):
            named = _FILE.match(block)
            yield (named[1] if named else f"part-{number}.yaml"), block


def commands(text: str) -> list[list[str]]:
    """The words of every command in a block; comments are left out."""
    joined = [block.replace("\\\n", " ") for block in blocks(text)]
    return _words([line for block in joined for line in block.splitlines()])


def mentions(text: str) -> list[list[str]]:
    """The words of every command between backticks in a sentence."""
    return _words(_INLINE.findall(_FENCE.sub("\n", text)))


def _words(lines: Sequence[str]) -> list[list[str]]:
    parts = [
        part for line in lines if line.split(" ")[0] in PROGRAMS for part in line.split(" && ")
    ]
    return [words for part in parts if len(words := shlex.split(part, comments=True)) > 1]


def links(path: Path) -> Iterator[str]:
    """What a Markdown file links to in its own project."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if "://" not in target:
            yield target
