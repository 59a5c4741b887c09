"""`python -m raypipe.tracking` opens the MLflow UI; with `--send` it sends records left behind."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys

from raypipe.config import ConfigError
from raypipe.extras import check_installed
from raypipe.interrupts import one_sentence
from raypipe.progress import any_character
from raypipe.tracking.client import default_uri, resolved
from raypipe.tracking.names import TRAININGS
from raypipe.tracking.orphans import send_left_behind


def main(arguments: list[str]) -> int:
    """Replace this process by the UI, or send what jobs could not send."""
    any_character()
    if arguments[:1] == ["--send"]:
        with one_sentence():
            if _lacks("mlflow"):
                return 2
            return 1 if send_left_behind() else 0
    options, others = _options().parse_known_args(arguments)
    uri, root = resolved(default_uri())
    if uri.startswith("http"):
        print(f"MLFLOW_TRACKING_URI names a server, open it in a browser: {uri.place}")
        return 0
    if _lacks():
        return 2
    if not _is_free(options.host, options.port):
        print(
            f"error: --port {options.port}: {options.host} has no such port free; name another "
            f"one, such as --port {options.port % 65_000 + 1}",
            file=sys.stderr,
        )
        return 2
    address = ["--host", options.host, "--port", str(options.port)]
    command = [sys.executable, "-m", "mlflow", "ui", *address]
    command += ["--default-artifact-root", root] if root else []
    page = f"http://{options.host}:{options.port}/{TRAININGS}"
    print(f"MLflow UI on {uri}: {page}", flush=True)
    # by the environment: everyone on this machine may read the arguments of a process
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri.reveal()}
    os.execve(sys.executable, command + others, environment)


def _lacks(*modules: str) -> bool:
    """Whether something that the command, or this use of it, needs is missing, which it says."""
    try:
        check_installed("ui", modules)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return True
    return False


def _options() -> argparse.ArgumentParser:
    """Where the UI listens; all else, `--help` too, is for `mlflow ui`."""
    parser = argparse.ArgumentParser(
        "python -m raypipe.tracking", add_help=False, allow_abbrev=False
    )
    parser.add_argument("--host", "-h", default="127.0.0.1")
    parser.add_argument("--port", "-p", type=_port, default=5000)
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65_536):
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 65535, found {text[:20]!r}")
    return int(text)


def _is_free(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server((host, port)):
        return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
