"""pytest for the tests on Ray and, beside it, for all others: Ray mostly waits.

python tests/tiers.py -q -k losses      arguments go to both

The others are written to a file and shown when they have ended. (pytest-xdist 3.8 under pytest 9.2
takes no notice of its groups, and tests on Ray must share one cluster.)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

SPECIAL = "not services and not chaos and not gpu"
NOTHING = 5
"""pytest's code for no test collected: `-k` may name tests of one tier only."""


def tier(marks: str, arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", "-m", f"({marks}) and {SPECIAL}", *arguments]


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryFile("w+") as out:
        unit = subprocess.Popen(
            tier("not ray", ["-p", "no:cacheprovider", *arguments]), stdout=out, stderr=out
        )
        try:
            print("tests on Ray; the others run beside them and are shown afterwards", flush=True)
            codes = [subprocess.run(tier("ray", arguments)).returncode]
            codes.append(unit.wait())
        finally:
            unit.kill()
        out.seek(0)
        print("the other tests", flush=True)
        sys.stdout.writelines(out)
    wrong = [code for code in codes if code not in (0, NOTHING)]
    return wrong[0] if wrong else min(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
