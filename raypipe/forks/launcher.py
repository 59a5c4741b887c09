"""What Ray starts instead of its own `setup_worker.py`: asks the server for a fork.

Standard library only, and little of it: this file runs for every process of Ray.
"""

import json
import os
import resource
import signal
import socket
import sys


def fork() -> int | None:
    """The exit status of a fork that did this process's work; None where none was to be had."""
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(os.environ["RAYPIPE_FORKS"])
            os.umask(umask := os.umask(0o077))
            request = {
                "argv": sys.argv[1:],
                "environment": dict(os.environ),
                "executable": sys.executable,
                "folder": os.getcwd(),
                "niceness": os.getpriority(os.PRIO_PROCESS, 0),
                "umask": umask,
                "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
                "limits": {
                    name: resource.getrlimit(getattr(resource, name))
                    for name in dir(resource)
                    if name.startswith("RLIMIT_")
                },
            }
            socket.send_fds(server, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
            answer = server.makefile().readline()
            if answer != "forked\n":
                return None
        except (OSError, KeyError):
            return None
        status = server.makefile().readline()  # empty when the server died
        return int(status) if status.strip() else 1


if __name__ == "__main__":
    status = fork()
    if status is not None:
        sys.exit(status)
    import ray

    script = os.path.join(os.path.dirname(ray.__file__), "_private/workers/setup_worker.py")
    os.execv(sys.executable, [sys.executable, script, *sys.argv[1:]])
