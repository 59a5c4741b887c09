"""A stage as a step: Ray Train turns weights and groups into a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from raypipe.artifacts import Artifact, Attempt, Step
from raypipe.data.groups import GroupReader
from raypipe.data.pairs import Truncation
from raypipe.inference.groups import TrainingGroups
from raypipe.inference.score import Reranking
from raypipe.inference.tokens import Tokens
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.resources import Context
from raypipe.train.settings import StageConfig
from raypipe.train.worker import train_worker


@dataclass(frozen=True)
class Stage(Step):
    """One trained stage; `start` is the backbone or the stage before it."""

    stage_name: str
    config: StageConfig
    model: CrossEncoder
    truncation: Truncation
    start: Step
    groups: TrainingGroups
    query_tokens: Tokens
    doc_tokens: Tokens
    validation: Reranking
    teacher_kind: Literal["score", "rank"]
    measures: Sequence[str]
    selection: str
    depth: int
    seed: int
    precision: str

    kind: ClassVar[str] = "checkpoint"

    @property
    def name(self) -> str:
        fresh = not isinstance(self.start, Stage) and self.model.keep_layers
        layers = f"-{self.model.keep_layers}layers" if fresh else ""
        return f"{self.start.name}{layers}-{self.stage_name}"

    @property
    def positive_relevance(self) -> int:
        return self.groups.negatives.queries.queries.positive_relevance

    def spec(self) -> Mapping[str, Any]:
        stage = {k: v for k, v in self.config.semantic().items() if k != "groups"}
        model = {k: v for k, v in self.model.semantic().items() if k != "backbone"}
        return {
            "stage": stage,
            "model": model,
            "truncation": self.truncation.semantic(),
            "teacher_kind": self.teacher_kind if self.config.loss.uses == "teacher" else None,
            "measures": list(self.measures),
            "selection": self.selection,
            "depth": self.depth,
            "seed": self.seed,
            "precision": self.precision,
        }

    def inputs(self) -> Mapping[str, Step]:
        return {
            "start": self.start,
            "groups": self.groups,
            "query_tokens": self.query_tokens,
            "doc_tokens": self.doc_tokens,
            **self.validation.steps("validation_"),
        }

    def chain(self) -> list[Stage]:
        """The stages before this one, first first, and this one."""
        before = self.start.chain() if isinstance(self.start, Stage) else []
        return [*before, self]

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        resources = context.resources.for_trials(1)
        groups = GroupReader(attempt.inputs["groups"].local())
        from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        use_gpu = resources.use_gpu()
        TorchTrainer(
            train_worker,
            train_loop_config={
                "stage": self,
                "attempt": attempt,
                "budget": context.micro_batch_tokens(),
                "batch_tokens": context.batch_tokens(),
                "use_gpu": use_gpu,
            },
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": resources.cpus_per_worker}
                | ({"GPU": 1} if use_gpu else {}),
            ),
            run_config=RunConfig(
                name=f"{self.stage_name}-{self.digest}-{attempt.name[-6:]}",
                storage_path=f"{attempt.store.uri.rstrip('/')}/.train",
                failure_config=FailureConfig(max_failures=resources.worker_failures),
                logging_config=LoggingConfig(log_level="WARNING"),  # INFO repeats every report
                callbacks=_callbacks(self.digest, context.on_report),
            ),
        ).fit()
        with attempt.store.fs.open_input_stream(f"{attempt.base}/trainer.json") as stream:
            facts = json.loads(stream.read())
        return {**facts, "workers": resources.workers, "groups": len(groups)}


def history(checkpoint: Artifact) -> list[dict[str, float]]:
    """The rows of a stage's training history, in order."""
    lines = (checkpoint.local() / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _callbacks(digest: str, on_report: Callable[[str, dict[str, Any]], None] | None) -> list[Any]:
    if on_report is None:
        return []
    from ray.train import UserCallback

    class Forward(UserCallback):
        """In the controller process: rank 0's report goes to the tracker."""

        def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
            on_report(digest, metrics[0])

    return [Forward()]
