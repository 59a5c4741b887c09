"""An LLM that ray.data.llm runs with vLLM on the cluster's GPUs.

**Not run yet**: there was no GPU where this was written. It was written against the source of the
installed Ray; tests cover the prompts, the settings and the checks, not vLLM itself.

Ray Data starts its actors anew for every pipeline, so each call of the generator loads the model
again (minutes for a large one). It suits one call with very many prompts. For work in many calls,
such as sliding windows, start `vllm serve MODEL` and use the `http` engine.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from raypipe.config import NOT_SEMANTIC, ConfigError
from raypipe.inference.llm.base import Engine, Generator, Prompt
from raypipe.inference.llm.vllm_generator import VllmGenerator
from raypipe.models.backbone import Backbone

if TYPE_CHECKING:
    from raypipe.resources import Context

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


class VllmEngine(Engine):
    """vLLM in Ray actors, one per `replicas`, each on `tensor_parallel` GPUs. Never run so far."""

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
    top_logprobs: int = Field(20, ge=1, le=20)
    """Alternatives read for a prompt that has choices; vLLM's own limit is 20."""

    def check(self) -> None:
        """vLLM is installed, the model is there, and a running cluster has the GPUs.

        Raises:
            ConfigError: what is missing, and how to get it.
        """
        missing = self._missing(_gpus())
        if missing:
            raise ConfigError(f"engine vllm: {'; '.join(missing)}")
        Backbone(self.model).spec()

    def identity(self) -> dict[str, Any]:
        """Model by content or revision, and the sampling."""
        names = ("type", "model", "temperature", "top_logprobs", "context_tokens")
        named = {name: getattr(self, name) for name in names}
        backbone = Backbone(self.model)
        return {**named, "model": backbone.name, "weights": dict(backbone.spec())}

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
