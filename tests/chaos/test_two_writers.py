"""Writers of one artifact at the same moment, killed at any moment, or on a full disk.

python -m pytest -m chaos tests/chaos/test_two_writers.py -s      prints the figures
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killing import ROOT
from number_steps import Number, Sum, read
from racers import race

from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.storage.sweeping import abandoned

ROUNDS = int(os.environ.get("RAYPIPE_CHAOS_ROUNDS", "100"))
MOMENTS = 50
pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("wait", [False, True], ids=["commit", "builder"])
@pytest.mark.parametrize("jitter_ms", [0, 20, 200])
@pytest.mark.parametrize("writers", [2, 8])
def test_of_several_writers_one_wins_and_all_have_its_files(tmp_path, writers, jitter_ms, wait):
    begun = time.monotonic()
    wrong = race(str(tmp_path), ROUNDS, writers, jitter_ms / 1000, wait)
    seconds = time.monotonic() - begun
    print(
        f"\n{ROUNDS} rounds, {writers} writers, {jitter_ms} ms: {len(wrong)} wrong, {seconds:.0f} s"
    )
    assert wrong == []
    folders = list(tmp_path.glob("numbers/*/attempt-*"))
    assert len(folders) == ROUNDS  # who lost removed its own


@pytest.mark.parametrize("writers", [2, 8])
def test_of_several_repairers_one_wins(tmp_path, writers):
    for value in range(ROUNDS):
        artifact = Builder(Store(str(tmp_path))).get(Number(value))
        (artifact.local() / "value.txt").unlink()
    assert race(str(tmp_path), ROUNDS, writers, 0.0, False) == []


BUILD = """\
import sys
sys.path.insert(0, {helpers!r})
from number_steps import Number, Sum
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
store, value = Store(sys.argv[1]), int(sys.argv[2])
print("begun", flush=True)
for n in range(value, value + 1000):
    Builder(store).get(Sum((Number(n), Number(n + 1))))
    print("done", n, flush=True)
"""


def builder_process(folder: Path, first: int) -> subprocess.Popen[str]:
    code = BUILD.format(helpers=str(ROOT / "tests" / "helpers"))
    command = [sys.executable, "-c", code, str(folder / "storage"), str(first)]
    log = (folder / "log").open("a")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)


def test_a_writer_that_is_killed_at_any_moment_loses_nothing_that_it_said(tmp_path):
    rng, store, seen = random.Random(11), Store(str(tmp_path / "storage")), 0
    for moment in range(MOMENTS):
        first = moment * 1000
        process = builder_process(tmp_path, first)
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        time.sleep(rng.random() * 0.5)
        process.send_signal(signal.SIGKILL)
        done = [int(line.split()[1]) for line in process.stdout if line.startswith("done")]
        process.wait()
        for n in done:
            found = store.find(Sum((Number(n), Number(n + 1))))
            assert found is not None and read(found.local()) == 2 * n + 1
        after = first + len(done)
        builder = Builder(store)
        begun = time.monotonic()
        assert read(builder.get(Sum((Number(after), Number(after + 1)))).local()) == 2 * after + 1
        assert time.monotonic() - begun < 20  # nobody waits for the lease of a dead process
        seen += len(done)
    assert seen > 10
    left = [
        s for path in tmp_path.glob("storage/*/*") for s in abandoned(store, below(store, path))
    ]
    print(f"\n{MOMENTS} kills, {seen} artifacts said done, {len(left)} abandoned attempts left")
    assert len(left) <= MOMENTS


def below(store: Store, path: Path) -> str:
    return str(path.relative_to(store.root))


def test_a_disk_that_is_full_at_any_moment_loses_nothing(tmp_path):
    """The same work goes on when there is room."""
    mount, rng = tmp_path / "disk", random.Random(12)
    mount.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)]
    if subprocess.run(small, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    failures = 0
    try:
        for moment in range(MOMENTS):
            size = 4 * rng.randrange(3, 24)
            storage = mount / f"storage-{moment}"
            remount(mount, used(mount) + size * 1024)
            store, done = Store(str(storage)), []
            try:
                for n in range(100):
                    Builder(store).get(Sum((Number(n), Number(n + 1))))
                    done.append(n)
            except OSError as error:
                failures += 1
                assert "No space left" in str(error)
            remount(mount, 1 << 26)
            for n in done:
                found = store.find(Sum((Number(n), Number(n + 1))))
                assert found is not None and read(found.local()) == 2 * n + 1
            after = len(done)
            again = Builder(store).get(Sum((Number(after), Number(after + 1))))
            assert read(again.local()) == 2 * after + 1
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
    print(f"\n{failures} of {MOMENTS} disks were full in the middle")
    assert failures > MOMENTS // 2


def used(mount: Path) -> int:
    stat = os.statvfs(mount)
    return (stat.f_blocks - stat.f_bfree) * stat.f_frsize


def remount(mount: Path, size: int) -> None:
    options = f"remount,size={size // 1024}k"
    subprocess.run(["mount", "-o", options, str(mount)], check=True)
