"""Forks a `video-gateway` for each message on the socket that is its standard input: JSON with `arguments`,
`environment` and `folder`, and three file descriptors: output, errors, and a pipe to which it writes the process id of
the child and, when that has ended, its exit code. Ends with the other end of the socket."""

import gc
import json
import os
import random
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, NoReturn

MAX_BYTES = 2**20


def main() -> None:
    import app.cli.main
    import app.cli.serve  # loaded once for all of them

    program = str(app.cli.main.__file__)
    statuses: dict[int, int] = {}
    signal.signal(signal.SIGCHLD, lambda *_: reap(statuses))
    orders = socket.socket(fileno=0)
    gc.freeze()  # so that the children go on sharing what is loaded
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, MAX_BYTES, 3)
        if not message:
            return
        out, err, status = descriptors
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # it may end before it is known
        child = os.fork()
        if child == 0:
            for other in (orders.detach(), status, *statuses.values()):
                os.close(other)
            become(json.loads(message), program, out, err)
        statuses[child] = status
        os.write(status, b"%d\n" % child)
        os.close(out)
        os.close(err)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def become(order: dict[str, Any], program: str, out: int, err: int) -> NoReturn:
    """Run the command in the child, which never returns to the loop."""
    import app.cli.main

    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, name in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(descriptor, name)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["folder"])
        sys.argv = [program, *order["arguments"]]
        random.seed()
        app.cli.main.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def reap(statuses: dict[int, int]) -> None:
    """Report the children that have ended."""
    while True:
        try:
            child, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            return
        status = statuses.pop(child)
        with suppress(BrokenPipeError):  # no test waits for it any more
            os.write(status, b"%d\n" % os.waitstatus_to_exitcode(ended))
        os.close(status)


if __name__ == "__main__":
    main()
