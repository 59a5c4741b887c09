"""Other people's lists and triples, from files and ir_datasets ids, in bounded memory."""

from raypipe.inference.files.runfiles import RunFileCandidates, check_files
from raypipe.inference.files.scoreddocs import ScoredDocsCandidates
from raypipe.inference.files.triples import TripleGroups, open_docpairs

__all__ = [
    "RunFileCandidates",
    "ScoredDocsCandidates",
    "TripleGroups",
    "check_files",
    "open_docpairs",
]
