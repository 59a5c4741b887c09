"""Text as words and as one number: what counts as equal, and words of scripts without spaces."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np

_SYLLABLES = "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ecd\u1000-\u103f\u1780-\u17d3"
"""Letters and vowel signs of Thai, Lao, Burmese and Khmer."""
_IDEOGRAPHS = (
    "\u3005\u3007\u3041-\u3096\u30a1-\u30fa\u30fc-\u30fe\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Chinese characters and the two syllabaries of Japanese, half width too."""
UNSPACED = re.compile(f"[{_IDEOGRAPHS}]+|[{_SYLLABLES}]+")
"""A run of letters of a script that puts no space between words. Korean puts them."""
_WORD = re.compile(r"\w+")
_UNSEEN = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
"""What has no width: control characters, joiners, marks of direction, variants of a character."""


def normalised(text: str) -> str:
    """The text as people compare it: lower case, single spaces, nothing that has no width, one form
    of every character (NFKC: full width letters and accents written as two characters are no
    difference)."""
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_UNSEEN.sub("", plain).split())


def text_hash(text: str) -> int:
    """64 bits of the normalised text: of a billion different texts, two agree by chance once in
    forty times, of ten million once in 370,000."""
    return int.from_bytes(hashlib.blake2b(normalised(text).encode(), digest_size=8).digest(), "big")


def text_hashes(texts: Iterable[str]) -> np.ndarray:
    """`text_hash` of every text, uint64."""
    return np.fromiter(map(text_hash, texts), np.uint64)


def words(text: str) -> list[str]:
    """Runs of letters and digits in lower case; where a script has no spaces, its characters."""
    lower = text.lower()
    if lower.isascii() or not UNSPACED.search(lower):
        return _WORD.findall(lower)
    return [word for spaced, run in parted(lower) for word in _WORD.findall(spaced) + list(run)]


def mostly_unspaced(texts: Iterable[str]) -> bool:
    """Whether a quarter or more of the letters are of scripts without spaces: such a letter says as
    much as two or three of an alphabet."""
    letters = unspaced = 0
    for text in texts:
        letters += sum(map(str.isalpha, text))
        unspaced += sum(len(match.group()) for match in UNSPACED.finditer(text))
    return 4 * unspaced >= max(letters, 1)


def parted(text: str) -> Iterator[tuple[str, str]]:
    """The text as pairs of a part with spaces, which may be empty, and a run of letters without."""
    at = 0
    for match in UNSPACED.finditer(text):
        yield text[at : match.start()], match.group()
        at = match.end()
    yield text[at:], ""


def ngrams(run: str) -> list[str]:
    """Characters of a run as terms: of Chinese and Japanese every one and every two neighbours, so
    that short questions have more than one answer; of the other scripts, whose letters say less,
    every three neighbours, or the run where it is shorter."""
    if re.match(f"[{_SYLLABLES}]", run):
        return [run[at : at + 3] for at in range(max(len(run) - 2, 1))]
    return [*run, *map("".join, pairwise(run))]
