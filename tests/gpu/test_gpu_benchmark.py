"""jobs/benchmark.py --gpu: its arithmetic, and that a rehearsal goes through its lines."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

PLACE = Path(__file__).resolve().parents[2] / "jobs" / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", PLACE)
    assert spec is not None and spec.loader is not None
    module = sys.modules["gpu_benchmark"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_nothing_is_measured(benchmark, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="not run: expected a CUDA device, and torch finds none"):
        benchmark.run(rehearse=False, seconds=1.0, out=None)


def test_flops_are_those_of_weights_and_attention(benchmark, tmp_path):
    bench = benchmark.Bench.of(rehearse=True, seconds=1.0)
    folder = benchmark.random_model(tmp_path / "m", "bert", bench.shape, bench)
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 64)  # of two layers
    expected = [2 * weights * n + 4 * 32 * n * 2 * n for n in (10, 30)]
    assert benchmark.flops(folder, np.array([10, 30])) == pytest.approx(np.mean(expected))


def test_a_rehearsal_measures_every_way(benchmark, monkeypatch, tmp_path, capsys):
    """Beside raypipe's own, ways of sentence-transformers that are not installed are named."""
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))  # `run` sets another
    monkeypatch.setattr(benchmark, "SHAPES", {"MiniLM-L6": benchmark.SHAPES["MiniLM-L6"]})

    def absent(*_: object, **__: object) -> float:
        raise ModuleNotFoundError("No module named 'datasets'", name="datasets")

    monkeypatch.setattr(benchmark, "their_training", absent)
    benchmark.run(rehearse=True, seconds=1.0, out=str(tmp_path / "out.json"))
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["machine"]["card"] == "none (a rehearsal on CPU)"
    assert written["machine"]["matmul_tflops"] > 0
    rates = [(row["work"], row["pairs_per_s"]) for row in written["rows"]]
    assert [work for work, _ in rates] == ["scoring"] * 3 + ["training"] * 4
    assert all(rate > 0 for _, rate in rates[:5]) and [r for _, r in rates[5:]] == [None] * 2
    assert all(row["peak_share"] > 0 for row in written["rows"][:5])
    printed = capsys.readouterr().out
    assert printed.count("not run: datasets is not installed") == 4  # of the table, of the JSON
