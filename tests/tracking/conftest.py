"""One tracked store for the tests of this folder, seen through a Recorder and a client."""

from __future__ import annotations

import pytest

from raypipe.tracking.recorder import Recorder


class Tracked:
    """A recorder whose calls are seen at once, with the server's run ids."""

    def __init__(self, uri: str) -> None:
        self.recorder = Recorder(uri, "raypipe tests", program="sweep.py")
        self.uri = self.recorder.uri
        self.count = 0

    def __getattr__(self, verb: str):
        def call(run: str, *args, **more) -> str:
            getattr(self.recorder, verb)(run, *args, **more)
            assert self.recorder.drain() == (0, 0)
            return self.recorder.server_run(run)

        return call

    def start(self, name: str, kind: str, parent: str | None = None, **more) -> str:
        """Our id of a new run."""
        self.count += 1
        run = f"run-{self.count}"
        self.recorder.start(run, name, kind, parent, **more)
        assert self.recorder.drain() == (0, 0)
        return run

    def id(self, run: str) -> str:
        return self.recorder.server_run(run)


@pytest.fixture(scope="session")
def tracker(tmp_path_factory):
    """One store for all modules: a new sqlite database takes MLflow two seconds."""
    folder = tmp_path_factory.mktemp("tracking")
    tracked = Tracked(f"sqlite:///{folder / 'sub' / 'mlflow.db'}")
    yield tracked
    tracked.recorder.close()


@pytest.fixture(scope="session")
def client(tracker):
    from mlflow import MlflowClient

    return MlflowClient(tracker.uri)


@pytest.fixture(scope="session")
def experiment_id(client, tracker) -> str:
    tracker.start("first", "job")
    return client.get_experiment_by_name("raypipe tests").experiment_id
