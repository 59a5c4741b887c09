"""Claims: jobs of one cluster that want the same artifact make it once.

One named actor remembers which job makes which artifact. A claim is a lease that its holder renews,
so the claim of a dead job ends. Claims only save double work: without them, or when the actor or a
claim is lost, the store's manifests still decide (artifacts).
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

LEASE_S = 15.0
NAME, NAMESPACE = "claims-1", "raypipe"


class Registry:
    """Who holds which key until when; one instance lives in an actor."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, float]] = {}

    def claim(self, key: str, owner: str, lease: float) -> bool:
        """Take or renew `key` for `lease` seconds; False if another owner holds it."""
        now = time.monotonic()
        holder, until = self._held.get(key, (owner, 0.0))
        if holder != owner and until > now:
            return False
        self._held[key] = (owner, now + lease)
        return True

    def release(self, key: str, owner: str) -> None:
        """Free `key` if `owner` holds it."""
        if self._held.get(key, ("", 0.0))[0] == owner:
            del self._held[key]


class Claims:
    """A `Builder`'s claims, on the cluster that this process is connected to."""

    def __init__(self, announce: Callable[[str], None], lease: float = LEASE_S) -> None:
        self._announce = announce
        self._lease = lease
        self._owner = uuid.uuid4().hex
        self._actor: Any = None
        self.lost: list[str] = []
        """Keys that another job claimed while this one held them."""

    def __getstate__(self) -> dict[str, Any]:
        # a process that receives the claims is another owner, with its own handle
        return {**vars(self), "_actor": None, "_owner": uuid.uuid4().hex, "lost": []}

    @contextlib.contextmanager
    def __call__(self, key: str, stands: Callable[[], bool]) -> Iterator[None]:
        """Hold `key` in the block; first wait while another job holds it and nothing stands yet.

        Args:
            key: the artifact's address, its storage included.
        """
        waiting = False
        while not self._asked("claim", key, self._owner, self._lease):
            if stands():
                yield
                return
            if not waiting:
                self._announce(f"waiting for another job that makes {key}")
                waiting = True
            time.sleep(min(self._lease / 4, 1.0))
        over = threading.Event()
        renewal = threading.Thread(target=self._renew, args=(key, over), daemon=True)
        renewal.start()
        try:
            yield
        finally:
            over.set()
            self._asked("release", key, self._owner)

    def _renew(self, key: str, over: threading.Event) -> None:
        wait = self._lease / 3
        while not over.wait(wait):
            try:
                held = self._call("claim", key, self._owner, self._lease)
            except Exception:  # of any library: the lease leaves time for more tries
                wait = self._lease / 10
                continue
            wait = self._lease / 3
            if not held:
                self.lost.append(key)
                self._announce(
                    f"another job took the claim on {key}, which this job was late to renew; "
                    "what is committed first counts for both"
                )
                return

    def _asked(self, verb: str, *args: Any) -> Any:
        """As `_call`; without an answer there is no claim, which only saves double work."""
        try:
            return self._call(verb, *args)
        except Exception:  # of any part of Ray
            self._actor = None
            return True

    def _call(self, verb: str, *args: Any) -> Any:
        import ray

        for _ in range(2):  # a new actor takes the place of one that was killed
            try:
                return ray.get(getattr(self._registry(), verb).remote(*args))
            except ray.exceptions.RayActorError:
                self._actor = None
        return True  # without claims the manifests decide

    def _registry(self) -> Any:
        import ray

        if self._actor is None:
            self._actor = (
                ray.remote(Registry)
                .options(
                    name=NAME,
                    namespace=NAMESPACE,
                    lifetime="detached",
                    get_if_exists=True,
                    num_cpus=0,
                )
                .remote()
            )
        return self._actor
