"""Prompts through ray.data.llm's vLLM stage. **Not run yet**, as `vllm` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raypipe.inference.llm.base import Answer, Prompt
from raypipe.inference.llm.choices import choice_logprobs
from raypipe.inference.llm.pipeline import through
from raypipe.models.backbone import Backbone

if TYPE_CHECKING:
    from raypipe.inference.llm.vllm import VllmEngine
    from raypipe.resources import Context


class VllmGenerator:
    def __init__(self, engine: VllmEngine, context: Context) -> None:
        self._engine = engine
        self._context = context

    def __call__(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Answer]:
        """Answers in order; a prompt that vLLM refuses (too long) is an `Answer.error`."""
        if not prompts:
            return []
        rows = through(self._processor(), self.rows(prompts, max_new_tokens), self._context)
        return [read_row(row, prompt.choices) for row, prompt in zip(rows, prompts, strict=True)]

    def count_tokens(self, text: str) -> int:
        """Exact, special tokens aside."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def rows(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[dict[str, Any]]:
        """Token ids and sampling parameters.

        The chat template is applied here: the processor's own stages tokenise its text with the
        special tokens that the template already wrote, and start three actors more.
        """
        texts = [
            self._tokenizer.apply_chat_template(
                [{"role": role, "content": text} for role, text in prompt.messages],
                tokenize=False,
                add_generation_prompt=True,
            )
            for prompt in prompts
        ]
        ids = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        params = [self._engine.sampling(prompt, max_new_tokens) for prompt in prompts]
        return [
            {"tokenized_prompt": list(i), "sampling_params": p}
            for i, p in zip(ids, params, strict=True)
        ]

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        backbone = Backbone(self._engine.model)
        pinned = {"revision": backbone.revision} if backbone.folder is None else {}
        return AutoTokenizer.from_pretrained(
            backbone.folder or backbone.source, trust_remote_code=False, **pinned
        )

    def _processor(self) -> Any:
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

        backbone = Backbone(self._engine.model)
        little = {"num_cpus": 0}
        config = vLLMEngineProcessorConfig(
            model_source=str(backbone.folder or backbone.source),
            engine_kwargs=self._engine.engine_kwargs(self._context.precision),
            batch_size=self._engine.batch_size,
            concurrency=self._engine.replicas,
            should_continue_on_error=True,
            log_engine_metrics=False,
            chat_template_stage=False,
            tokenize_stage=False,
            detokenize_stage=False,
        )
        return build_processor(
            config,
            postprocess=_columns,
            preprocess_map_kwargs=little,
            postprocess_map_kwargs=little,
        )


def read_row(row: Mapping[str, Any], choices: Sequence[str]) -> Answer:
    """The answer in a row of the processor; rows that failed skip its postprocess."""
    if row.get("__inference_error__"):
        return Answer(error=" ".join(str(row["__inference_error__"]).split())[:300])
    found = None
    if choices and row["tokens"] is not None:
        pairs = zip(list(row["tokens"]), list(row["logprobs"]), strict=True)
        found = choice_logprobs([(str(t), float(value)) for t, value in pairs], choices)
    return Answer(str(row["generated_text"]), found)


def _columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Index, text and the first token's alternatives, which Arrow has no type for as a mapping."""
    (first, *_) = [*(row["logprobs"] if row.get("logprobs") is not None else []), None]
    top = [v for v in (first or {}).values() if v and v.get("decoded_token") is not None]
    return {
        "index": row["index"],
        "generated_text": row["generated_text"],
        "tokens": [v["decoded_token"] for v in top] or None,
        "logprobs": [v["logprob"] for v in top] or None,
    }
