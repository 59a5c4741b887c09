"""Names that people chose, made safe for every place that they go to, and checked when read.

A function for a place takes any text and returns what that place shows as this text. What is safe
already comes back as it is. `Name` is the type of a recipe's names: it refuses what no place shows.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

if TYPE_CHECKING:
    from rich.text import Text

LONGEST = 200
"""Characters of a name, at most: MLflow's columns hold 250, and raypipe adds words of its own."""
_LONGEST_PART = 255
"""Bytes of one part of a path, at most, on the usual file systems."""

_PLANES = "".join(rf"\U{plane:04x}fffe\U{plane:04x}ffff" for plane in range(0x11))
_UNSEEN = (
    r"\x00-\x1f\x7f-\x9f\u2028\u2029"  # controls, line breaks, escape sequences
    r"\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f"  # with those before: no width, or another direction of writing
    r"\ud800-\udfff\ufdd0-\ufdef" + _PLANES  # halves of characters, and what is none: no XML
)
_UNSEEN_CHARACTER = re.compile(f"[{_UNSEEN}]")
_NO_PATH = rf"/\\{_UNSEEN}"
_RESERVED = re.compile(r"\.{0,2}|(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE | re.DOTALL)
"""Parts of paths that are folders already, or devices on the file systems of Windows."""

_MARKUP = re.compile(
    r"[\\`*~$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # between letters it is no emphasis
    r"|<(?![.\d][^@]*$)"  # <.001 is no tag and no address
    r"|&(?=#?\w+;)"
    r"|\](?=[(\[:])"  # the end of what could be a link
    r"|(?:(?<=\s)|^)#(?=#*$)"  # closes a heading
    r"|^(?:[#>|=]|[-+](?![.\d])|\[(?=[ xX]\]))"  # begin a block
)
_NUMBERED = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")


# --- checked when a recipe is read ----------------------------------------------------------------


def shown_by_all(text: str) -> str:
    """The text, if every place can show its characters: visible ones on one line.

    Raises:
        ValueError: names the first other character and its position.
    """
    if (other := _UNSEEN_CHARACTER.search(text)) is not None:
        character = unicodedata.name(other[0], "a control character or half a character")
        raise ValueError(
            f"expected visible characters on one line, found U+{ord(other[0]):04X} ({character}) "
            f"as character {other.start() + 1} of {shortened(text)!r}; leave it out"
        )
    return text


def checked_name(text: str) -> str:
    """The name, if it is neither blank nor long, and every place can show it.

    Raises:
        ValueError: it is not.
    """
    if not text.strip():
        raise ValueError(f"expected a name, found {text!r}; give one")
    if len(text) > LONGEST:
        raise ValueError(
            f"expected a name of at most {LONGEST} characters, found {len(text)}: "
            f"{shortened(text)!r}; shorten it"
        )
    return shown_by_all(text)


Name = Annotated[str, AfterValidator(checked_name)]
"""A name that a recipe gives to something: it goes to paths, tables, plots, TREC runs, MLflow."""


# --- made safe for a place ------------------------------------------------------------------------


def printable(text: str) -> str:
    """The text on one line for terminals and pages: no escape sequence, no half of a character."""
    return _UNSEEN_CHARACTER.sub(lambda unseen: " " if unseen[0].isspace() else "\ufffd", text)


def encodable(text: str) -> str:
    """The text with its line breaks, for files and databases: they hold no half of a character."""
    return text.encode("utf-8", "replace").decode()


def shortened(text: str, most: int = 80) -> str:
    """The text, printable; of a long one its beginning and its end, where names differ."""
    text, half = printable(text), (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - half]}\u2026{text[-half:]}"


def quoted(value: Any, most: int = 200) -> str:
    """How a value of a file looks in an error: text in quotes, and the middle of a long one cut."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        return f"a {type(value).__name__} that is too long to show"
    return shortened(text, most)


def path_part(text: str, ending: str = "", also: str = "") -> str:
    """The text with its ending as one file or folder: never a way out of the folder above it.

    A text that had to be changed or cut gets a digest of itself: no two texts have one part.

    Args:
        ending: safe text that stays whole, such as `-<digest>` or `.trec`.
        also: further characters that the place does not take.
    """
    safe = re.sub(f"[{_NO_PATH}{re.escape(also)}]", "_", text)
    if _RESERVED.fullmatch(safe + ending):
        safe = f"_{safe}"
    if safe == text and len(f"{safe}{ending}".encode()) <= _LONGEST_PART:
        return safe + ending
    own = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    room = _LONGEST_PART - len(f"-{own}{ending}".encode())
    return f"{safe.encode()[:room].decode(errors='ignore')}-{own}{ending}"


def path_below(text: str, ending: str) -> str:
    """The text with its ending as a path below a folder.

    A text whose parts between slashes are all safe keeps its slashes, as raypipe 0.1 stored it.
    """
    whole = f"{text}{ending}"
    kept = all(path_part(part) == part for part in whole.split("/"))
    return whole if kept else path_part(text, ending)


def trec_token(text: str) -> str:
    """The text as the tag of a TREC run, whose columns white space parts."""
    return re.sub(r"\s+", "_", printable(text)) or "run"


def plot_text(text: str) -> str:
    """The text as matplotlib draws it: nothing of it is TeX, and legends do not leave it out."""
    text = shortened(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def rich_text(text: str, style: str = "") -> Text:
    """The text for rich's tables and lines, without markup."""
    from rich.text import Text

    return Text(printable(text), style=style)


def markdown_text(text: str) -> str:
    """The text on one line of Markdown, where nothing of it is markup."""
    line = _MARKUP.sub(r"\\\g<0>", " ".join(printable(text).split()))
    return _NUMBERED.sub(r"\1\\\2", line)


def markdown_cell(text: str) -> str:
    """The text as a cell of a Markdown table."""
    return markdown_text(text).replace("|", r"\|")


def markdown_code(text: str) -> str:
    """The text as code within a line of Markdown."""
    line = " ".join(printable(text).split())
    fence = "`" * (max((len(ticks) for ticks in re.findall("`+", line)), default=0) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def counted(count: int, noun: str) -> str:
    """A number of things: 1 query, 1,200 queries, 2 folders of Ray Tune."""
    head, _, rest = noun.partition(" of ")
    if count != 1:
        head = f"{head.removesuffix('y')}ies" if head.endswith("ry") else f"{head}s"
    return f"{count:,} {head}" + (f" of {rest}" if rest else "")
