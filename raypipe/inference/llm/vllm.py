"""An LLM that ray.data.llm runs with vLLM on the cluster's GPUs.

**Never run on a GPU**: this module follows the source of the installed Ray; tests cover prompts,
settings and checks, not vLLM itself.

Ray Data starts its actors anew for every pipeline, so each call of the generator loads the model
again (minutes for a large model). This engine suits one call with very many prompts. For work in
many calls, such as sliding windows, start `vllm serve MODEL` and use the `http` engine.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from raypipe.config import NOT_SEMANTIC, ConfigError
from raypipe.inference.llm.base import (
    Answer,
    Engine,
    Generator,
    Prompt,
    backbone_tokenizer,
    choice_answer,
)
from raypipe.inference.llm.templates import (
    NO_THINKING,
    check_template_kwargs,
    read_kwargs,
    template_files,
)
from raypipe.models.backbone import Backbone
from raypipe.tables.chunks import quieten

if TYPE_CHECKING:
    from raypipe.resources import Context


DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


class VllmEngine(Engine):
    """vLLM in Ray actors, one per `replicas`, each on `tensor_parallel` GPUs."""

    type: Literal["vllm"] = "vllm"
    in_actor: ClassVar[bool] = False

    model: str = Field(min_length=1)
    """Hub name, directory (which every GPU node sees) or package:NAME/folder."""
    tensor_parallel: Annotated[int, Field(ge=1), NOT_SEMANTIC] = 1
    """GPUs that share one copy of the model."""
    replicas: Annotated[int, Field(ge=1), NOT_SEMANTIC] = 1
    """Copies of the model, at most."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1), NOT_SEMANTIC] = 0.9
    """Share of a GPU's memory for weights and cache."""
    batch_size: Annotated[int, Field(ge=1), NOT_SEMANTIC] = 64
    """Prompts per Ray Data batch; vLLM batches by itself below it."""
    temperature: float = Field(0.0, ge=0)
    """0 takes the likeliest token; more draws."""
    top_logprobs: int = Field(20, ge=1, le=20)
    """Alternatives read for a prompt that has choices; vLLM's own limit is 20."""

    chat_template_kwargs: dict[str, Any] = Field(default_factory=lambda: dict(NO_THINKING))
    """Variables for the model's chat template; the default switches thinking off."""

    def check(self) -> None:
        """vLLM is installed, the model is there, and a running cluster has the GPUs.

        Raises:
            ConfigError: what is missing, and how to get it.
        """
        missing = self._missing(_gpus())
        if missing:
            raise ConfigError(f"engine vllm: {'; '.join(missing)}")
        Backbone(self.model).check()
        check_template_kwargs(self.chat_template_kwargs, self._template_files())

    def _template_files(self) -> list[Path]:
        folder = Backbone(self.model).folder
        return [] if folder is None else template_files(folder)

    def identity(self) -> dict[str, Any]:
        """Model by content or revision, and the sampling."""
        names = ("type", "model", "temperature", "top_logprobs", "context_tokens")
        named = {name: getattr(self, name) for name in names}
        backbone = Backbone(self.model)
        plain = {**named, "model": backbone.name, "weights": dict(backbone.spec())}
        read = read_kwargs(self.chat_template_kwargs, self._template_files())
        return {**plain, "chat_template_kwargs": read} if read else plain

    def engine_kwargs(self, precision: str) -> dict[str, Any]:
        """What vLLM is started with."""
        backbone = Backbone(self.model)
        pinned = {"revision": backbone.revision} if backbone.folder is None else {}
        return {
            "max_model_len": self.context_tokens,
            "tensor_parallel_size": self.tensor_parallel,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "dtype": DTYPES[precision],
            "max_logprobs": self.top_logprobs,
            "enable_prefix_caching": True,
            "trust_remote_code": False,
            **pinned,
        }

    def sampling(self, prompt: Prompt, max_new_tokens: int) -> dict[str, Any]:
        """vLLM's sampling parameters for one prompt.

        With choices the answer is constrained to them; the log-probabilities are the model's own,
        taken before the constraint (vLLM's default `logprobs_mode`).
        """
        params: dict[str, Any] = {"temperature": self.temperature, "max_tokens": max_new_tokens}
        if (drawn := prompt.sampling) is not None:
            params |= {
                "temperature": drawn.temperature,
                "top_p": drawn.top_p,
                "seed": drawn.seed % 2**63,
            }
        if prompt.choices:
            params["logprobs"] = self.top_logprobs
            params["structured_outputs"] = {"choice": list(prompt.choices)}
        return params

    def open(self, context: Context) -> Generator:
        """A generator; vLLM itself starts with its first call.

        Raises:
            ConfigError: vLLM or a GPU is missing. `resources.gpu: true` trusts an autoscaling
                cluster to start the GPUs.
        """
        missing = self._missing(None if context.resources.gpu else _gpus())
        if missing:
            raise ConfigError(f"engine vllm: {'; '.join(missing)}")
        return VllmGenerator(self, context)

    def _missing(self, gpus: float | None) -> list[str]:
        missing = []
        if importlib.util.find_spec("vllm") is None:
            missing.append("vLLM is not installed; pip install 'ray[llm]' on every node")
        if gpus is not None and gpus < self.tensor_parallel:
            missing.append(
                f"the model needs {self.tensor_parallel} GPU(s), the cluster has {gpus:g}; join "
                "one with GPUs, or use the `http` engine with a server, or a small model on CPU"
            )
        return missing


def _gpus() -> float | None:
    """GPUs of the cluster; None before it is joined."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0)) if ray.is_initialized() else None


class VllmGenerator:
    """Sends prompts through ray.data.llm's vLLM stage; every call is one pipeline of Ray Data."""

    def __init__(self, engine: VllmEngine, context: Context) -> None:
        self._engine = engine
        self._context = context

    def __call__(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Answer]:
        """Answers in order; a prompt that vLLM refuses (too long) is an `Answer.error`."""
        if not prompts:
            return []
        rows = processed(self._processor(), self.rows(prompts, max_new_tokens), self._context)
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
                **self._engine.chat_template_kwargs,
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
        return backbone_tokenizer(self._engine.model)

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
    text = str(row["generated_text"])
    if choices and row["tokens"] is not None:
        pairs = zip(list(row["tokens"]), list(row["logprobs"]), strict=True)
        return choice_answer(text, [(str(t), float(value)) for t, value in pairs], choices)
    return Answer(text)


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


def processed(processor: Any, rows: list[dict[str, Any]], context: Context) -> list[dict[str, Any]]:
    """What a ray.data.llm processor makes of the rows, in their order.

    Ray Data gives rows back in any order, hence the index, which the processor's postprocess has
    to keep.

    Raises:
        RuntimeError: a row did not come back.
    """
    import ray

    quieten()
    items = [{"index": index, **row} for index, row in enumerate(rows)]
    results = processor(ray.data.from_items(items, override_num_blocks=1)).take_all()
    results.sort(key=lambda row: row["index"])
    if [row["index"] for row in results] != list(range(len(rows))):
        raise RuntimeError(
            f"engine vllm: {len(results)} of {len(rows)} prompts came back from Ray Data; finished "
            "chunks are kept, run the same command again"
        )
    return results
