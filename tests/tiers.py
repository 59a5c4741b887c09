"""pytest for the tests on Ray, in two processes, and beside them for all others: Ray mostly waits.

python tests/tiers.py -q -k losses      arguments go to every process

Each of the two starts a Ray of its own, so the suite also shows that two jobs on one machine do
not disturb each other. The first is shown as it goes, the others when they have ended.
(pytest-xdist 3.8 under pytest 9.2 takes no notice of its groups, and tests that share a Ray must
share a process.)
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from typing import IO

SPECIAL = "not services and not chaos and not gpu"
TIERS = {
    "sweeps on Ray": "ray and sweeps",
    "other tests on Ray": "ray and not sweeps",
    "tests without Ray": "not ray",
}
NOTHING = 5
"""pytest's code for no test collected: `-k` may name tests of one tier only."""


def start(number: int, marks: str, arguments: list[str], out: IO[str] | None) -> subprocess.Popen:
    # only one may write .pytest_cache
    alone = ["-p", "no:cacheprovider"] if number else []
    command = [sys.executable, "-m", "pytest", "-m", f"({marks}) and {SPECIAL}"]
    return subprocess.Popen([*command, *alone, *arguments], stdout=out, stderr=out)


def main(arguments: list[str]) -> int:
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in TIERS]
        outs = [None, *files[1:]]
        print(
            f"{next(iter(TIERS))}; the others run beside them and are shown afterwards", flush=True
        )
        running = [
            start(number, marks, arguments, out)
            for number, (marks, out) in enumerate(zip(TIERS.values(), outs, strict=True))
        ]
        try:
            codes = []
            for name, process, out in zip(TIERS, running, outs, strict=True):
                codes.append(process.wait())
                if out is not None:
                    out.seek(0)
                    print(name, flush=True)
                    sys.stdout.writelines(out)
        finally:
            for process in running:
                process.terminate()
    wrong = [code for code in codes if code not in (0, NOTHING)]
    return wrong[0] if wrong else min(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
