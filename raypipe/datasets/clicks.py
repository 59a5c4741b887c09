"""A collection whose judgements are clicks: `files:corpus=/c,clicks=/log.csv[,queries=/q]`.

A document is relevant (1) that was clicked, and shown often enough, for a query; one that stood
above a click and was never clicked is not (0). Other documents are not judged. Without a file of
queries, the texts in the log are the queries, and the hash of a text is its id.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError
from raypipe.datasets.click_log import ClickLog, Shown
from raypipe.datasets.own_files import OwnFiles
from raypipe.datasets.own_rows import table_files
from raypipe.datasets.text_match import hash_id
from raypipe.storage.files import file_checksum

BIASED = (
    "its judgements are clicks, so they are biased towards the logged ranking: what it did not "
    "show, or showed far down, is not judged. Compare with what was shown, not with judged sets"
)
"""What every report says of such a data set."""
JUDGED_BY_CLICKS = "judged_by_clicks"
"""The counter that only such a data set has."""
_NAMED = re.compile(r"(?:files|trec):(?:.*,)?clicks=")


def has_clicks(dataset: str) -> bool:
    """Whether an id names a log of clicks."""
    return _NAMED.match(dataset) is not None


class Clicks(OwnFiles):
    """See the module. The parts are those of `OwnFiles`, with `clicks` in place of `qrels`.

    Raises:
        ConfigError: judgements too, or `least_impressions` is no whole number from 1.
    """

    def __init__(self, dataset: str) -> None:
        super().__init__(dataset, documents_only=True)
        if "qrels" in self._paths:
            raise ConfigError(f"dataset {dataset}: clicks are its judgements; leave qrels out")
        self._log_path = Path(self._columns["clicks"]).expanduser()
        if not self._log_path.is_absolute():
            raise ConfigError(
                f"dataset {dataset}: expected absolute paths (a submitted job runs elsewhere), as "
                f"in clicks={self._log_path.absolute()}"
            )
        least = self._columns.get("least_impressions", "1")
        if not (least.isascii() and least.isdecimal() and int(least)):
            raise ConfigError(
                f"dataset {dataset}: expected a whole number from 1 as least_impressions, found "
                f"{least!r}; correct it"
            )
        self._least = int(least)
        if "queries" not in self._paths:
            self.name = f"{self.docs_name}-clicks"

    def check(self, queries: bool = True) -> None:
        """Check that the files are there."""
        super().check(queries)
        if queries:
            table_files(self._log_path, "clicks")

    def identity(self) -> dict[str, Any]:
        """One checksum per file, and how they are read."""
        read = {k: v for k, v in self._columns.items() if k != "clicks"}
        parts = {part: self._checksum(part) for part in self._paths}
        log = [file_checksum(path) for path in table_files(self._log_path, "clicks")]
        return {"source": "clicks", **parts, "clicks": log, **read}

    def queries(self) -> Iterator[tuple[str, str]]:
        """Those of the file, or the texts of the log."""
        if "queries" in self._paths:
            yield from super().queries()
        else:
            yield from ((hash_id(text), text) for text in self._log.by_query)

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        """Clicked documents with 1, passed ones with 0."""
        return ((query_id, doc_id, relevance) for query_id, doc_id, _, relevance in self._judged())

    def weights(self) -> Iterator[tuple[str, str, float]]:
        """How much each clicked document counts: the clipped inverse of its clicks' propensity,
        1 in the mean over all of them."""
        propensities = self._log.propensities()
        found = [
            (query_id, doc_id, self._log.weight(shown, propensities))
            for query_id, doc_id, shown, relevance in self._judged()
            if relevance == 1
        ]
        mean = sum(weight for *_, weight in found) / max(len(found), 1)
        return ((query_id, doc_id, weight / mean) for query_id, doc_id, weight in found)

    def scoreddocs(self) -> Iterator[tuple[str, str, float]]:
        """The judged documents of each query in the order in which they were shown."""
        return (
            (query_id, doc_id, -shown.position) for query_id, doc_id, shown, _ in self._judged()
        )

    def docpairs(self) -> Iterator[tuple[str, str, str]]:
        """Every clicked document beside every one that was passed over for the same query."""
        for query, docs in self._log.by_query.items():
            judged = {doc_id: self._relevance(shown) for doc_id, shown in docs.items()}
            passed = [doc_id for doc_id, relevance in judged.items() if relevance == 0]
            for doc_id in (doc_id for doc_id, relevance in judged.items() if relevance == 1):
                yield from ((self._query_id(query), doc_id, other) for other in passed)

    def judgement_counts(self) -> Mapping[str, int]:
        """Of the whole log; `clicked_too_rarely_shown` documents are not judged."""
        relevances = Counter(relevance for *_, relevance in self._judged())
        every = (shown for docs in self._log.by_query.values() for shown in docs.values())
        return {
            JUDGED_BY_CLICKS: relevances.total(),
            "clicked_documents": relevances[1],
            "passed_documents": relevances[0],
            "clicked_too_rarely_shown": sum(
                bool(shown.clicks) and shown.impressions < self._least for shown in every
            ),
        }

    def place_of(self, kind: str, text: str) -> str:
        """The log, where an id is of a judgement or of its queries."""
        if kind == "judgement" or (kind == "query" and "queries" not in self._paths):
            return str(self._log_path)
        return super().place_of(kind, text)

    @cached_property
    def _log(self) -> ClickLog:
        named = {k: v for k, v in self._columns.items() if k in ("query", "query_id", "doc_id")}
        return ClickLog(self._log_path, named)

    def _judged(self) -> Iterator[tuple[str, str, Shown, int]]:
        """(query id, document, how it was shown, relevance) of every document that is judged."""
        for query, docs in self._log.by_query.items():
            for doc_id, shown in docs.items():
                if (relevance := self._relevance(shown)) is not None:
                    yield self._query_id(query), doc_id, shown, relevance

    def _query_id(self, query: str) -> str:
        return query if "queries" in self._paths else hash_id(query)

    def _relevance(self, shown: Shown) -> int | None:
        if shown.clicks:
            return 1 if shown.impressions >= self._least else None
        return 0 if shown.skipped else None
