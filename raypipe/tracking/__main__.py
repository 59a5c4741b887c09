"""`python -m raypipe.tracking` opens the MLflow UI; with `--send` it sends records left behind."""

from __future__ import annotations

import os
import sys

from raypipe.progress import any_character
from raypipe.tracking.client import default_uri, resolved
from raypipe.tracking.orphans import send_left_behind


def main(arguments: list[str]) -> int:
    """Replace this process by the UI, or send what jobs could not send."""
    any_character()
    if arguments[:1] == ["--send"]:
        return 1 if send_left_behind() else 0
    uri, root = resolved(default_uri())
    if uri.startswith("http"):
        print(f"MLFLOW_TRACKING_URI names a server, open it in a browser: {uri.place}")
        return 0
    address = ["--host", "127.0.0.1", "--port", "5000"]
    command = [sys.executable, "-m", "mlflow", "ui", *address]
    command += ["--default-artifact-root", root] if root else []
    print(f"MLflow UI on {uri}: http://127.0.0.1:5000", flush=True)
    # by the environment: everyone on this machine may read the arguments of a process
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri.reveal()}
    os.execve(sys.executable, command + arguments, environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
