"""Forks a worker for each line of JSON on standard input: `environment` and `log`, the path of its output. Prints the
process id of each, and its exit code when it has ended."""

import json
import os
import signal
import sys


def main() -> None:
    import app.cli.serve  # noqa: F401  loaded once for all of them
    from app.cli.main import worker

    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _work(worker, order)
        _tell(log=order["log"], pid=child)


def _work(worker: object, order: dict[str, dict[str, str]]) -> None:
    """Run in the child, which never returns to the loop."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.update(order["environment"])
        log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(0)
        assert callable(worker)
        worker()
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def _reap() -> None:
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            return
        _tell(pid=child, code=os.waitstatus_to_exitcode(status))


def _tell(**news: object) -> None:
    os.write(1, json.dumps(news).encode() + b"\n")


if __name__ == "__main__":
    main()
