"""A program that forks for each command `nnspec` it is asked for: the child need not import what takes a second.

A request is a line of JSON with `arguments`, `folder`, `environment`, and the files `out` and `err`. The answer is a
line with the exit code.
"""

import gc
import json
import os
import sys

sys.path[:] = sys.path[1:]  # it is the folder of the tests

from nnspec.conformance.start import main  # noqa: E402


def load():
    """Import what the commands import, and read what they read."""
    import hypothesis.stateful  # noqa: F401
    import xdist.plugin  # noqa: F401
    from nnspec.conformance import checks, faults, plugin, session  # noqa: F401
    from nnspec.conformance.checks import steady  # noqa: F401
    from nnspec.conformance.report import report, terminal  # noqa: F401

    checks.load_checks()
    faults.broken_by_faults()
    gc.freeze()  # or the collector copies the memory that the child shares


def begin(asked):
    """Make this process what a new one would be in the folder."""
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
        opened = os.open(path, os.O_RDWR | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)


def ask():
    """Fork for each request. Return the arguments in the child, and None at the end of the requests."""
    with open(0, closefd=False) as requests:
        for line in requests:
            asked = json.loads(line)
            child = os.fork()
            if child == 0:
                begin(asked)
                return asked["arguments"]
            _, status = os.waitpid(child, 0)
            os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return None


if __name__ == "__main__":
    load()
    if (arguments := ask()) is not None:
        sys.argv = ["nnspec", *arguments]
        sys.exit(main(arguments))
