"""One run of a ray.data.llm processor over rows that are at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raypipe.inference.chunks import quieten

if TYPE_CHECKING:
    from raypipe.resources import Context


def through(processor: Any, rows: list[dict[str, Any]], context: Context) -> list[dict[str, Any]]:
    """The rows of a ray.data.llm processor in the order of its input, on the driver's machine.

    There, because a url such as http://localhost:8000 means that machine. Ray Data gives rows back
    in any order, hence the index, which the processor's postprocess has to keep.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    quieten(context)
    if "HttpRequestStage" in processor.list_stage_names():
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        stage = processor.get_stage_by_name("HttpRequestStage")
        stage.map_batches_kwargs["scheduling_strategy"] = here
    items = [{"index": index, **row} for index, row in enumerate(rows)]
    done = processor(ray.data.from_items(items, override_num_blocks=1)).take_all()
    done.sort(key=lambda row: row["index"])
    if [row["index"] for row in done] != list(range(len(rows))):
        raise RuntimeError(f"{len(done)} of {len(rows)} prompts came back")
    return done
