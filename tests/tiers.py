"""pytest in several processes, side by side.

python tests/tiers.py -q -k losses      the tests on Ray, and beside them all others in two halves
python tests/tiers.py --chaos -q        jobs that are killed, and beside them writers that race

Further arguments go to all; paths among them are run instead of the halves. What runs beside is
written to a file and shown when it has ended; it only takes what the first leaves of two cores, as
the tests on Ray wait for one another and would end last. (pytest-xdist 3.8 under pytest 9.2 takes
no notice of its groups, and tests on Ray must share one cluster.)
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SPECIAL = "not services and not chaos and not gpu"
NOTHING = 5
"""pytest's code for no test collected: `-k` may name tests of one tier only."""
RACES = "tests/chaos/test_two_writers.py"
NO_CACHE = ["-p", "no:cacheprovider"]


def halves() -> list[list[str]]:
    """The folders and files of tests/ in two halves that take about the same time."""
    found = sorted(p for p in (ROOT / "tests").iterdir() if p.is_dir() or "test_" in p.name)
    names = [f"tests/{path.name}" for path in found if path.name[0] not in "._"]
    return [[n for n in names if (n[6] < "r") == early] for early in (True, False)]


def tiers(arguments: list[str]) -> dict[str, list[str]]:
    """pytest's arguments by name; the first goes first."""
    if "--chaos" in arguments:
        given = [word for word in arguments if word != "--chaos"]
        return {
            "kills": ["-m", "chaos", "tests/chaos", f"--ignore={RACES}", *given],
            "races": ["-m", "chaos", RACES, *NO_CACHE, *given],
        }
    named = any((ROOT / word.partition("::")[0]).exists() for word in arguments)
    others = {"not ray": []} if named else dict(zip(("a to q", "r to z"), halves(), strict=True))
    unit = ["-m", f"(not ray) and {SPECIAL}", *NO_CACHE, *arguments]
    return {"ray": ["-m", f"(ray) and {SPECIAL}", *arguments]} | {
        name: [*unit, *paths] for name, paths in others.items()
    }


def main(arguments: list[str]) -> int:
    (first, chosen), *others = tiers(arguments).items()
    pytest = [sys.executable, "-m", "pytest"]
    with contextlib.ExitStack() as ending:
        beside = []
        for name, words in others:
            out = ending.enter_context(tempfile.TemporaryFile("w+"))
            process = subprocess.Popen(
                [*pytest, *words], cwd=ROOT, stdout=out, stderr=out, preexec_fn=lambda: os.nice(10)
            )
            ending.callback(process.kill)
            beside.append((name, out, process))
        print(f"{first}; {', '.join(n for n, *_ in beside)} beside, shown afterwards", flush=True)
        # Ray's processes would be nicer (15) than what runs beside
        variables = {**os.environ, "RAY_worker_niceness": "0"}
        codes = [subprocess.run([*pytest, *chosen], cwd=ROOT, env=variables).returncode]
        for name, out, process in beside:
            codes.append(process.wait())
            out.seek(0)
            print(name, flush=True)
            sys.stdout.writelines(out)
    wrong = [code for code in codes if code not in (0, NOTHING)]
    return wrong[0] if wrong else min(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
