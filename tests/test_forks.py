"""Processes of Ray are forks of a server, and are what they would have been without it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raypipe import forks
from raypipe.forks import launcher

LAUNCHER = Path(forks.__file__).with_name("launcher.py")
FACTS = """\
import json, os, signal, sys
sys.stdin.read()
json.dump({
    "argv": sys.argv, "folder": os.getcwd(), "path": sys.path[0], "name": __name__,
    "variable": os.environ.get("ASKED"), "given": os.environ.get("GIVEN"),
    "kept": os.environ.get("RAYPIPE_FORKS"), "nice": os.nice(0), "umask": os.umask(0),
    "blocked": [int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "imported": "colorsys" in sys.modules, "parent": os.getppid(), "group": os.getpgid(0),
    "pid": os.getpid(),
}, sys.stdout)
print("said", file=sys.stderr)
sys.exit(7)
"""


@pytest.fixture
def server(monkeypatch):
    """The address of a server that has imported colorsys."""
    monkeypatch.setattr(forks, "_servers", [])
    monkeypatch.setattr(forks, "can_fork", lambda: True)
    forks.import_ahead(["colorsys"])
    yield forks._servers[0][0]
    forks.end_server()


def words(script: Path, *arguments: str, **context) -> list[str]:
    text = json.dumps(context)
    return [
        f"--serialized-runtime-env-context={text}",
        "--language=PYTHON",
        str(script),
        *arguments,
    ]


def launch(address: str, script: Path, *arguments: str, env=None, **context):
    return subprocess.Popen(
        [sys.executable, str(LAUNCHER), *words(script, *arguments, **context)],
        env={**os.environ, "RAYPIPE_FORKS": address, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=script.parent,
        preexec_fn=lambda: (
            os.nice(3),
            os.umask(0o027),
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]),
        ),
    )


def wait_for(condition, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_fork_is_what_its_launcher_would_have_been(server, tmp_path):
    (script := tmp_path / "script.py").write_text(FACTS)
    started = launch(
        server, script, "one", "two words", env={"ASKED": "yes"}, env_vars={"GIVEN": "${ASKED}!"}
    )
    out, err = started.communicate("")
    facts = json.loads(out)
    assert started.returncode == 7 and err == "said\n"
    assert facts["argv"] == [str(script), "one", "two words"] and facts["name"] == "__main__"
    assert facts["folder"] == facts["path"] == str(tmp_path)
    assert facts["variable"] == "yes" and facts["given"] == "yes!" and facts["kept"] is None
    assert facts["nice"] == os.nice(0) + 3 and facts["umask"] == 0o027
    assert facts["blocked"] == [int(signal.SIGINT)]
    # and it is a fork: another parent, a group of its own, and the server's modules
    assert facts["imported"] and facts["parent"] not in (started.pid, os.getpid())
    assert facts["group"] == facts["pid"]


def test_a_server_has_no_thread_that_a_fork_would_miss(server, tmp_path):
    (script := tmp_path / "script.py").write_text(
        "import os; print(len(os.listdir(f'/proc/{os.getppid()}/task')))"
    )
    assert launch(server, script).communicate("")[0] == "1\n"


def test_who_kills_the_launcher_kills_the_fork(server, tmp_path):
    (script := tmp_path / "script.py").write_text(
        "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    )
    started = launch(server, script)
    pid = int(started.stdout.readline())
    assert alive(pid)
    started.kill()
    assert wait_for(lambda: not alive(pid))


def test_a_fork_that_is_killed_ends_its_launcher(server, tmp_path):
    (script := tmp_path / "script.py").write_text(
        "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    )
    started = launch(server, script)
    os.kill(int(started.stdout.readline()), signal.SIGKILL)
    assert started.wait(20) == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("env", "context"),
    [
        ({"OMP_NUM_THREADS": "17"}, {}),
        ({"PYTHONPATH": "/elsewhere"}, {}),
        ({}, {"env_vars": {"PYTHONPATH": "/elsewhere"}}),
        ({}, {"py_executable": "uv run python"}),
        ({}, {"command_prefix": ["podman", "run"]}),
        ({}, {"override_worker_entrypoint": "/other.py"}),
    ],
)
def test_what_a_fork_could_not_be_is_not_forked(server, tmp_path, monkeypatch, env, context):
    (script := tmp_path / "script.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("RAYPIPE_FORKS", server)
    monkeypatch.setattr(sys, "argv", [str(LAUNCHER), *words(script)])
    assert launcher.fork() == 3
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", [str(LAUNCHER), *words(script, **context)])
    assert launcher.fork() is None


@pytest.mark.parametrize("address", ["", "/nowhere/socket"])
def test_without_a_server_ray_starts_the_process(address, tmp_path):
    """As Ray's own script does, with its variables."""
    (script := tmp_path / "script.py").write_text(FACTS)
    started = launch(
        address,
        script,
        "one",
        env={"ASKED": "yes"},
        env_vars={"GIVEN": "${ASKED}!"},
        py_executable=sys.executable,
    )
    facts = json.loads(started.communicate("")[0])
    assert started.returncode == 7 and not facts["imported"]
    assert facts["argv"] == [str(script), "one"] and facts["given"] == "yes!"


def test_a_server_that_dies_lets_ray_start_the_process(server, tmp_path):
    (script := tmp_path / "script.py").write_text("import os; print(os.getppid())")
    os.kill(int(launch(server, script).communicate("")[0]), signal.SIGKILL)
    (script := tmp_path / "other.py").write_text("print('started')")
    assert launch(server, script, py_executable=sys.executable).communicate("")[0] == "started\n"


def test_a_server_ends_with_the_process_that_started_it(tmp_path):
    code = (
        "import os, time\nfrom raypipe import forks\nforks.can_fork = lambda: True\n"
        "forks.import_ahead(['colorsys'])\n"
        "print(forks._servers[0][0], flush=True)\ntime.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    address = Path(owner.stdout.readline().strip())
    (script := tmp_path / "script.py").write_text("import os; print(os.getppid())")
    pid = int(launch(str(address), script).communicate("")[0])
    assert alive(pid) and oct(address.parent.stat().st_mode & 0o777) == "0o700"
    owner.kill()
    owner.wait()
    assert wait_for(lambda: not alive(pid)) and not address.parent.exists()


@pytest.mark.parametrize("starts", [True, False])
def test_a_module_runs_in_a_fork_if_a_server_is_there(request, tmp_path, monkeypatch, starts):
    (tmp_path / "a_module.py").write_text(FACTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(forks, "_servers", [])
    if starts:
        request.getfixturevalue("server")
    command, environment = forks.forked("a_module")
    done = subprocess.run(command, env=environment, input="", capture_output=True, text=True)
    facts = json.loads(done.stdout)
    assert (done.returncode, done.stderr, facts["imported"]) == (7, "said\n", starts)
    assert Path(facts["argv"][0]).name == "a_module.py" and facts["name"] == "__main__"
    assert facts["kept"] is None


def test_a_folder_that_no_socket_fits_in_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(forks, "_servers", [])
    monkeypatch.setattr(forks, "can_fork", lambda: True)
    (long := tmp_path / ("x" * 120)).mkdir()
    monkeypatch.setattr(forks.tempfile, "tempdir", str(long))
    with forks.forked_workers(["colorsys"]):
        assert forks.SOCKET not in os.environ
    assert forks._servers == [] and list(long.iterdir()) == []


def test_forks_are_not_used_where_they_are_not_wanted(monkeypatch):
    monkeypatch.setattr(Path, "glob", lambda *_: iter([]))
    assert forks.can_fork() == (sys.platform == "linux")
    monkeypatch.setenv("RAYPIPE_FORKS", "0")
    assert not forks.can_fork()
    monkeypatch.delenv("RAYPIPE_FORKS")
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/dev/nvidia0")]))
    assert not forks.can_fork()


@pytest.mark.ray
def test_processes_of_ray_are_forks_with_the_threads_that_they_asked_for(cluster):
    import ray

    @ray.remote
    def facts() -> tuple[str, int, str]:
        import torch

        parent = Path(f"/proc/{os.getppid()}/cmdline").read_text()
        return parent, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]

    for cpus in (1, 2):
        parent, threads, asked = ray.get(facts.options(num_cpus=cpus).remote())
        assert "raypipe.forks.fork_server" in parent
        assert threads == int(asked) == 1  # what the tests set
