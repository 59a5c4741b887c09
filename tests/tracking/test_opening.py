"""A server that lets its user make no experiment: said before work, and no record is lost."""

from __future__ import annotations

import socket

import pytest
from denying_server import denying_server

from raypipe.config import ConfigError
from raypipe.tracking.opening import Opening
from raypipe.tracking.recorder import Recorder


def test_what_a_server_denies_is_one_sentence_before_work():
    said: list[str] = []
    with denying_server() as (uri, asked):
        opening = Opening(uri, "mine", said.append)
        with pytest.raises(ConfigError) as caught:
            opening.check(60)
    sentence = str(caught.value)
    assert sentence.startswith(
        "tracking: the experiment 'mine' could not be had: the server denies"
    )
    assert "403" in sentence and "\n" not in sentence
    assert sentence.endswith("or name one with tracking.experiment, such as team/search, team/ads")
    assert "experiments/create" in asked and said == []


def test_a_server_that_is_away_stops_no_job():
    with socket.socket() as taken:  # and listens to nobody
        taken.bind(("127.0.0.1", 0))
        Opening(f"http://127.0.0.1:{taken.getsockname()[1]}", "mine", pytest.fail).check(60)


def test_an_experiment_that_is_there_is_used(tracker, client, experiment_id):
    """A database denies nothing by name, and is not asked."""
    Opening(str(tracker.uri), "raypipe tests", pytest.fail).check()
    Opening(None, "mine", pytest.fail).check()
    names = [experiment.name for experiment in client.search_experiments()]
    assert names.count("raypipe tests") == 1 and "mine" not in names


def test_records_that_are_denied_wait_in_the_spool(monkeypatch, tmp_path):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))  # other tests' recorders would send them
    said: list[str] = []
    with denying_server() as (uri, _):
        recorder = Recorder(uri, "mine", said.append)
        recorder.start("job", "job", "job")
        recorder.log("job", {"loss": 1.0})
        waiting, lost = recorder.drain(2.0)
        recorder.close()
    assert (waiting, lost) == (2, 0) and recorder.sender.refused == 0
    assert len(said) == 1 and "does not take records (the experiment 'mine' could not" in said[0]
    assert str(recorder.spool.folder) in said[0]
