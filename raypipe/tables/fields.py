"""What stands in one field of a text file: an id that people can tell from others, or a number.

An id with characters that nobody sees looks like another and matches none. It is kept, since titles
of pages are ids too, but such ids are counted and the first is shown. A data set's own ids must
have no control characters: they stand in run files, tables and messages.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.config import ConfigError
from raypipe.names import quoted

LONGEST_ID = 4096
"""Characters of an id; addresses of web pages are the longest in use."""
INVISIBLE = "ids_with_invisible_characters"
"""The counter of such ids; absent where there are none."""
_CONTROL = re.compile("[\0-\x1f\x7f\x85\u2028\u2029]")
"""NUL, escape sequences, ends of lines."""
_HALF = re.compile("[\ud800-\udfff]")
_UNSEEN = ("Cc", "Cf", "Zl", "Zp")
"""Categories of characters that nobody sees: control, marks of format and direction, ends."""
_SPACES = "\xa0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f"
"""Spaces that look like the usual one, which parts columns."""
_UNUSUAL = r"[\x00-\x1f\x7f-\x{a0}\x{2000}-\x{200a}\x{202f}\x{205f}\p{Cf}\p{Zl}\p{Zp}]"
"""The same for Arrow's RE2."""
_PIECE = 1 << 17
"""Bytes looked at together: they stay in a processor's cache."""
# The first bytes, in UTF-8, of all characters beyond ASCII that _UNUSUAL finds.
_LEADS = np.zeros(256, bool)
_LEADS[[0xC2, 0xD8, 0xDB, 0xDC, 0xE0, 0xE1, 0xE2, 0xEF, 0xF0, 0xF3]] = True


# --- ids -----------------------------------------------------------------------------------------


def is_plain(text: str) -> bool:
    """Whether an id has nothing that `SeenIds` could find."""
    return text.isprintable() and " " not in text and 0 < len(text) <= LONGEST_ID


def are_plain(texts: Sequence[str]) -> bool:
    """Whether `is_plain` holds for each of several ids, at a tenth of the cost."""
    joined = "".join(texts)
    usual = joined.isprintable() and " " not in joined
    return usual and all(texts) and max(map(len, texts), default=1) <= LONGEST_ID


@dataclass
class SeenIds:
    """Looks at the ids of one file or data set."""

    counts: Counter[str]
    """Where ids with characters that nobody sees are counted."""
    strict: bool = False
    """Whether control characters are refused, or counted too."""

    def look(self, text: str, place_of: Callable[[str], str]) -> None:
        """Look at one id.

        Args:
            place_of: given an id, where it stands: the beginning of a sentence.

        Raises:
            ConfigError: the id is refused.
        """
        if is_plain(text):
            return
        if wrong := self._problem(text):
            raise ConfigError(
                f"{place_of(text)}: expected an id {wrong}, found {quoted(text, 80)}; rename it"
            )
        unseen = (c for c in text if unicodedata.category(c) in _UNSEEN or c in _SPACES)
        if (mark := next(unseen, None)) is None:
            return
        self.counts[INVISIBLE] += 1
        if self.counts[INVISIBLE] == 1:
            warnings.warn(
                f"{place_of(text)}: the id {quoted(text)} has a character that nobody sees "
                f"(U+{ord(mark):04X}); ids with one are kept, and counted as {INVISIBLE}",
                stacklevel=2,
            )

    def _problem(self, text: str) -> str:
        """What an id should be and is not; empty if it is kept."""
        if len(text) > LONGEST_ID:
            return f"of at most {LONGEST_ID:,} characters"
        if _HALF.search(text):
            return "without half surrogate pairs"
        return "without control characters" if self.strict and _CONTROL.search(text) else ""

    def look_at(self, column: pa.ChunkedArray | pa.Array, place_of: Callable[[str], str]) -> None:
        """Look at a column of ids; a column of plain ids costs one pass over its bytes."""
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        for chunk in chunks:
            if _may_be_unusual(chunk):
                long = pc.greater(pc.binary_length(chunk), LONGEST_ID)
                unusual = pc.or_(long, pc.match_substring_regex(chunk, _UNUSUAL))
                for text in chunk.filter(unusual).to_pylist():
                    self.look(text, place_of)


def _may_be_unusual(ids: pa.Array) -> bool:
    """False only where all ids are plain."""
    _, offsets, content = ids.buffers()
    kind = np.int64 if pa.types.is_large_string(ids.type) else np.int32
    bounds = np.frombuffer(offsets or b"", kind)[ids.offset :][: len(ids) + 1]
    if len(bounds) < 2 or bounds[0] == bounds[-1]:
        return False
    steps = np.arange(bounds[0], bounds[-1], LONGEST_ID // 2, dtype=kind)
    if not np.diff(np.searchsorted(bounds, steps)).all():  # no id begins in so many bytes
        return True  # comparing all lengths would take twice as long
    text = np.frombuffer(content, np.uint8)[bounds[0] : bounds[-1]]
    return not all(map(_is_usual, (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))))


def _is_usual(text: np.ndarray[Any, Any]) -> bool:
    """Whether all bytes are printable ASCII, or of letters in UTF-8 that are none of `_UNUSUAL`."""
    if (text + np.uint8(1)).view(np.int8).min() > ord(" "):  # 127 and all above become negative
        return True
    beyond = text[text > ord("~")]
    return not (text.min() < ord(" ") or (beyond == 0x7F).any() or _LEADS[beyond].any())


# --- numbers -------------------------------------------------------------------------------------


def whole(text: str) -> int:
    """The whole number that a field holds, in the digits 0 to 9.

    Raises:
        ValueError: it holds none, or one of thousands of digits.
    """
    return int(_in_digits(text))


def real(text: str) -> float:
    """The number that a field holds, in the digits 0 to 9; it may be nan or infinite.

    Raises:
        ValueError: it holds none.
    """
    return float(_in_digits(text))


def grade(text: str) -> int:
    """The relevance that a field holds; 1.0, as pandas writes 1, is whole.

    Raises:
        ValueError: it holds none; the text says what was expected.
    """
    try:
        value = whole(text) if "." not in text else int(real(text))
        if value != real(text):
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError("a whole number as relevance") from None
    if not -(2**31) <= value < 2**31:
        raise ValueError("a relevance within 32 bits")
    return value


def _in_digits(text: str) -> str:
    if "_" in text or not text.isascii():  # to Python alone 1_000 and digits of any script are some
        raise ValueError(f"expected a number in the digits 0 to 9, found {quoted(text)}")
    return text
