"""How an implementation is put in front of the checks: arrays in, arrays out, modules built. No test logic here.

`load` turns the name of an adapter, a file ("my_layers.py", "my_layers.py:Conv2d") or an object into a Subject.
"""

from nnspec.adapters.blocks import block
from nnspec.adapters.conditions import at_least, at_most, between, equal_to, multiple_of, one_of, square
from nnspec.adapters.loading import load
from nnspec.adapters.subject import Lacks, Subject, SubjectError, Unsupported

__all__ = [
    "Lacks", "Subject", "SubjectError", "Unsupported", "at_least", "at_most", "between", "block", "equal_to", "load",
    "multiple_of", "one_of", "square",
]  # fmt: skip
