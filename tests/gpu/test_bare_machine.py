"""Tests of a GPU are collected where Ray is not installed, and say by name why they do not run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="here they run")
def test_without_ray_and_without_a_gpu_every_test_is_skipped_by_name():
    command = [sys.executable, "-m", "pytest", "-p", "bare_gpu_machine", "-m", "gpu", "-q", "-rs"]
    helpers = [str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, helpers))},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    summary = done.stdout.splitlines()[-1]
    assert "skipped" in summary and "error" not in summary and "passed" not in summary
    reasons = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert reasons and all("needs a CUDA device, and torch finds none" in r for r in reasons)
