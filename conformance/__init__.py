"""The specification as properties that pytest runs. `check(obj)` judges an implementation."""

from typing import Any

# Files and folders of this package, each of which imports those before it alone; below all of them lie
# nnspec.reference and nnspec.adapters. What is not named here (the session, the commands) may import everything.
ROOMS = (
    *("system", "formats", "drawing", "sizes", "layouts", "case", "levels", "requirements"),
    *("bounds", "faults", "trial", "checks", "report"),
)


def check(subject: Any, **options: Any) -> dict[str, Any]:
    """Judge a subject: an adapter's name, a file, a module, a mapping of names, a function or a class.

    Options are those of the command line: `block`, `profile`, `sizes`, `dtype`, `seed`, `framework`, `device`; and
    `domain`, a mapping like DOMAIN in a file. A function or class is judged as the one `block` that is named, whatever
    its own name is. Returns the report, which is what `nnspec check --json` writes; all runs in this process, so that
    nothing guards against a subject that aborts or hangs. Raises nnspec.adapters.SubjectError for a subject that cannot
    be checked, ValueError for unknown options.
    """
    from nnspec.conformance.session import check_object

    return check_object(subject, **options)
