"""doctor: one line per thing that a job needs, and what to do about those that are wrong."""

from __future__ import annotations

import socket

from raypipe.commands import doctor


def by_name(**given) -> dict[str, doctor.Finding]:
    return {found.what: found for found in doctor.findings(**given)}


def test_on_this_machine_nothing_is_wrong(tmp_path):
    found = by_name(storage=str(tmp_path / "s"), tracking=f"sqlite:///{tmp_path}/mlflow.db")
    assert [f for f in found.values() if f.mark == "wrong"] == []
    assert {"Python", "torch", "ray", "processor", "GPU", "disk", "storage"} <= found.keys()
    assert "will be made by the first job" in found["tracking"].text
    assert not (tmp_path / "mlflow.db").exists()
    assert "will be made by the first job" in found["storage"].text
    assert list(tmp_path.iterdir()) == []  # nothing is made
    (tmp_path / "s").mkdir()
    assert "can be written to" in by_name(storage=str(tmp_path / "s"))["storage"].text
    assert list((tmp_path / "s").iterdir()) == []


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "VERSIONED", ("no-such-package", "no-such-client"))
    monkeypatch.setattr(doctor, "OPTIONAL", ("no-such-extra",))
    monkeypatch.setitem(doctor.EXTRAS, "track", {"no_such_client": "no-such-client"})
    monkeypatch.setitem(doctor.EXTRAS, "search", {f"no_such_{i}": f"no-such-{i}" for i in range(4)})
    found = by_name(storage=str(tmp_path))
    assert found["no-such-package"] == doctor.Finding(
        "no-such-package", "wrong", "not installed; pip install raypipe"
    )
    assert found["no-such-client"] == doctor.Finding(
        "no-such-client", "note", "not installed; pip install 'raypipe[track]'"
    )
    assert found["no-such-extra"].mark == "note"
    assert found["extra track"].text == (
        "lacks no-such-client; pip install 'raypipe[track]' for raypipe report, paper"
    )
    assert found["extra train"].text.startswith("lacks no-such-client; pip install 'raypipe[train]")
    assert found["extra search"].text == (
        "lacks no-such-client, no-such-0, no-such-1 and 2 more; pip install 'raypipe[search]'"
    )
    assert found["extras"].mark == "ok"
    assert {"mine", "dense", "onnx"} <= set(found["extras"].text.split(", "))
    assert not {"track", "train", "search", "ui"} & set(found["extras"].text.split(", "))


def test_a_storage_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    found = by_name(storage=str(tmp_path / "file"))["storage"]
    assert found.mark == "wrong" and "cannot be written" in found.text


def test_a_tracking_server_that_is_away_shows_no_password(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://me:planted-secret@127.0.0.1:{port}"
    found = by_name(storage=str(tmp_path), tracking=address)["tracking"]
    assert found.mark == "wrong" and "does not answer" in found.text
    assert "planted-secret" not in found.text


def test_a_port_that_is_taken_is_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert doctor._port(taken.getsockname()[1], "it").text == "taken; it takes another"
