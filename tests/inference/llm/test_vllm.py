"""The vLLM engine, what can be seen without vLLM: settings, rows, checks."""

from __future__ import annotations

import json

import pytest

from raypipe.config import ConfigError
from raypipe.inference.llm import vllm
from raypipe.inference.llm.base import Answer, Prompt
from raypipe.inference.llm.vllm import VllmEngine, VllmGenerator, _columns, processed, read_row
from raypipe.resources import Context, Resources

CONTEXT = Context(Resources(), progress_bars=False)
CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}{{ '[assistant]' }}"


def test_vllm_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(vllm, "_gpus", lambda: 0.0)
    monkeypatch.setattr(vllm.importlib.util, "find_spec", lambda name: None)
    asks = VllmEngine(model="org/model", tensor_parallel=2)
    for verb in (asks.check, lambda: asks.open(CONTEXT)):
        with pytest.raises(ConfigError) as caught:
            verb()
        assert "pip install 'ray[llm]'" in str(caught.value)
        assert "needs 2 GPU(s), the cluster has 0" in str(caught.value)
    later = Context(Resources(gpu=True))  # an autoscaling cluster starts GPUs when asked
    with pytest.raises(ConfigError) as caught:
        asks.open(later)
    assert "GPU" not in str(caught.value)


def test_vllm_settings_and_rows(tiny_backbone):
    asks = VllmEngine(model=str(tiny_backbone), context_tokens=512, temperature=0.3)
    assert asks.engine_kwargs("bf16") == {
        "max_model_len": 512,
        "tensor_parallel_size": 1,
        "gpu_memory_utilization": 0.9,
        "dtype": "bfloat16",
        "max_logprobs": 20,
        "enable_prefix_caching": True,
        "trust_remote_code": False,
    }
    generate = VllmGenerator(asks, CONTEXT)
    generate._tokenizer.chat_template = CHAT
    plain = Prompt((("system", "verified"), ("user", "draft")))
    one, two = generate.rows([plain, Prompt((("user", "draft"),), ("Yes", "No"))], 32)
    decoded = generate._tokenizer.decode(one["tokenized_prompt"])
    assert decoded.index("verified") < decoded.index("draft")
    assert "[CLS]" not in decoded  # the template alone writes special tokens
    assert one["sampling_params"] == {"temperature": 0.3, "max_tokens": 32}
    assert two["sampling_params"] == {
        "temperature": 0.3,
        "max_tokens": 32,
        "logprobs": 20,
        "structured_outputs": {"choice": ["Yes", "No"]},
    }
    assert "verified" not in json.dumps(asks.identity())
    assert str(tiny_backbone) not in json.dumps(asks.identity())


def test_vllm_rows_are_read():
    """Rows shaped as vLLMOutputData.model_dump() of the installed Ray."""
    top = {
        7: {"logprob": -0.5, "rank": 1, "decoded_token": " Yes"},
        9: {"logprob": -2.0, "rank": 2, "decoded_token": "No"},
        4: {"logprob": -3.0, "rank": 3, "decoded_token": None},
    }
    row = _columns({"index": 3, "generated_text": "Yes", "logprobs": [top], "metrics": None})
    assert row["index"] == 3
    assert read_row(row, ("Yes", "No")) == Answer("Yes", {"Yes": -0.5, "No": -2.0})
    bare = _columns({"index": 0, "generated_text": "hello", "logprobs": None})
    assert read_row(bare, ()) == Answer("hello")
    assert read_row(bare, ("Yes",)) == Answer("hello", None)
    failed = {"index": 0, "__inference_error__": "ValueError: too\n long", "prompt": "p"}
    assert read_row(failed, ("Yes",)) == Answer(error="ValueError: too long")


@pytest.mark.ray
def test_vllm_processor_is_one_stage(cluster, tiny_backbone):
    """The installed Ray takes the settings; nothing runs."""
    asks = VllmEngine(model=str(tiny_backbone), replicas=2, batch_size=32)
    processor = VllmGenerator(asks, CONTEXT)._processor()
    assert processor.list_stage_names() == ["vLLMEngineStage"]
    stage = processor.get_stage_by_name("vLLMEngineStage")
    assert stage.map_batches_kwargs["num_gpus"] == 1
    assert stage.fn_constructor_kwargs["model"] == str(tiny_backbone)
    assert stage.fn_constructor_kwargs["engine_kwargs"]["max_model_len"] == 4096
    assert stage.fn_constructor_kwargs["should_continue_on_error"] is True


@pytest.mark.ray
@pytest.mark.parametrize("lost", [0, 1])
def test_vllm_rows_are_put_in_order_and_none_is_missing(cluster, lost):
    class Backwards:
        def __call__(self, dataset):
            self.rows = dataset.take_all()[::-1][lost:]
            return self

        def take_all(self):
            return self.rows

    rows = [{"payload": text} for text in "abc"]
    if lost:
        with pytest.raises(RuntimeError, match="2 of 3 prompts came back"):
            processed(Backwards(), rows, CONTEXT)
    else:
        back = processed(Backwards(), rows, CONTEXT)
        assert [row["payload"] for row in back] == ["a", "b", "c"]
