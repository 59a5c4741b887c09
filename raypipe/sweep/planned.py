"""Ray Tune's side of the plan: which trial runs next."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from raypipe.sweep.plan import Readiness


class PlannedSearch(Searcher):
    """Suggests a trial as soon as nobody else is training what it needs.

    A trial that must wait is not suggested, so it holds neither a slot nor a CPU.
    """

    def __init__(self, readiness: Readiness) -> None:
        super().__init__()
        self._readiness = readiness
        self.asked: dict[str, int] = {}
        """Tune's id of a trial to its position in the plan."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The position of the next trial, None to ask again later."""
        if not self._readiness.waiting:
            return Searcher.FINISHED
        position = self._readiness.next()
        if position is None:
            return None
        self.asked[trial_id] = position
        return {"trial": position}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Free what the trial did not commit."""
        self._readiness.finished(self.asked[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: what was reached stands in the artifact store."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """There is no metric to optimise."""
        return True
