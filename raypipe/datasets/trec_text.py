"""TREC's collections and topics: <DOC> with <DOCNO>, and <top> or <topic> with their fields.

Files may be gzipped. Bytes that are not UTF-8 are read as Latin-1, as TREC's disks are written, and
counted per document.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from raypipe.config import ConfigError
from raypipe.datasets.lines import wrong
from raypipe.datasets.own_rows import OwnRow
from raypipe.storage.files import numbered_lines, open_bytes

LATIN = "documents_in_latin_1"
"""The counter of documents that are no UTF-8."""
TITLES = ("title", "headline", "head", "hl", "ttl", "ti")
BODIES = ("text", "body", "leadpara", "abstract", "contents")
"""Tags that are read where no template names others, in this order."""
LONGEST_DOC = 64 << 20
_BEGINS = re.compile(rb"<(\?xml|!--|!doctype|docs?|top|topics?|xml)(\s|>|$)", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_FIELD = re.compile(r"<([A-Za-z][\w.-]*)(?:\s[^<>]*)?>(.*?)</\1\s*>", re.DOTALL)
_OPEN = re.compile(r"<([A-Za-z][\w.-]*)(?:\s[^<>]*)?>([^<]*)")
_LABEL = re.compile(r"^\s*(?:Number|Topic|Description|Narrative|Domain|Concept\(s\))\s*:\s*")
_TOPIC = re.compile(r"<(?:top|topic)(\s[^<>]*)?>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""\b(?:number|num|id|qid)\s*=\s*["']([^"']+)["']""", re.IGNORECASE)


def is_trec(path: Path) -> bool:
    """Whether a file begins with a tag of TREC's; ids such as <dbpedia:Bee> do too."""
    with open_bytes(path) as stream:
        head = stream.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
    return _BEGINS.match(head) is not None


def trec_docs(path: Path, counts: Counter[str]) -> Iterator[OwnRow]:
    """The documents of a file: `docno`, and every other tag's content by its name in lower case.

    Args:
        counts: where `documents_in_latin_1` are added.

    Raises:
        ConfigError: a document without a <DOCNO>, or one that does not end.
    """
    for number, block in _blocks(path, b"<doc>", b"</doc>"):
        try:
            text = block.decode()
        except UnicodeDecodeError:
            text, counts[LATIN] = block.decode("latin-1"), counts[LATIN] + 1
        inside = text[text.find(">") + 1 : text.lower().rfind("</doc>")]
        fields: dict[str, list[str]] = {}
        for tag, content in _FIELD.findall(inside):
            fields.setdefault(tag.lower(), []).append(plain(content))
        values = {tag: " ".join(filter(None, parts)) for tag, parts in fields.items()}
        if not values.get("docno"):
            raise ConfigError(wrong(path, number, "a <DOCNO> in every <DOC>", text[:200]))
        if not any(values.get(tag) for tag in BODIES):
            values["text"] = plain(_without_ids(inside))
        yield OwnRow(path, number, values)


def trec_topics(path: Path) -> Iterator[OwnRow]:
    """The topics of a file: `num`, and `title`, `desc`, `narr` and other fields by their tags.

    Raises:
        ConfigError: a topic without a number, or no topic at all.
    """
    with open_bytes(path) as stream:
        content = stream.read(LONGEST_DOC)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    starts = list(_TOPIC.finditer(text))
    if not starts:
        raise ConfigError(f"{path}: expected <top> or <topic>, found none; name a file of topics")
    ends = [*(match.start() for match in starts[1:]), len(text)]
    for match, end in zip(starts, ends, strict=True):
        number = text.count("\n", 0, match.start()) + 1
        inside = re.split(r"</top(?:ic)?\s*>", text[match.end() : end], flags=re.IGNORECASE)[0]
        values = _topic_fields(inside)
        named = _ATTRIBUTE.search(match[1] or "")
        num = named[1] if named else values.get("num") or values.get("number") or ""
        if not num.split():
            raise ConfigError(wrong(path, number, "a <num> in every topic", inside.strip()[:200]))
        yield OwnRow(path, number, {**values, "num": num.split()[0]})


def _topic_fields(inside: str) -> dict[str, str]:
    """Fields whose end tags may be missing; of a tag that comes twice the first counts."""
    fields: dict[str, str] = {}
    for tag, content in _OPEN.findall(inside):
        short = {"description": "desc", "narrative": "narr"}.get(tag.lower(), tag.lower())
        fields.setdefault(short, plain(_LABEL.sub("", content)))
    return fields


def body_columns(names: Sequence[str]) -> list[str]:
    """The usual tags that a document has, in the order in which they are read."""
    return [tag for tag in (*TITLES, *BODIES) if tag in names]


def plain(text: str) -> str:
    """Without tags, with characters for their names, in single spaces."""
    return " ".join(html.unescape(_TAG.sub(" ", text)).split())


def _without_ids(inside: str) -> str:
    return re.sub(r"<(docno|docid|dochdr|docoldno)>.*?</\1>", " ", inside, flags=re.I | re.S)


def _blocks(path: Path, begin: bytes, end: bytes) -> Iterator[tuple[int, bytes]]:
    """(number of its first line, bytes) of everything between two tags, with them."""
    held: list[bytes] = []
    first = size = 0
    with open_bytes(path) as stream:
        for number, line in numbered_lines(path, stream):
            low = line.lower()
            if not held:
                if (at := low.find(begin)) < 0:
                    continue
                first, size, line, low = number, 0, line[at:], low[at:]
            elif begin in low:
                raise ConfigError(
                    wrong(path, number, "</DOC> before the next <DOC>", line.decode("latin-1"))
                )
            held.append(line)
            size += len(line)
            if end in low:
                yield first, b"".join(held)
                held = []
            elif size > LONGEST_DOC:
                raise ConfigError(wrong(path, first, "a </DOC> after this <DOC>", "none"))
    if held:
        raise ConfigError(
            wrong(path, first, "a </DOC> after this <DOC>", "the end of the file", "copy it again")
        )
