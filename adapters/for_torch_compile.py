"""PyTorch under torch.compile: each function of the subject `torch` compiled, and with it its gradient."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import torch
from nnspec.adapters import for_torch
from nnspec.adapters.subject import Subject, SubjectError


def subject() -> Subject:
    """torch's functions through its compiler, which writes C++ and has it compiled for every configuration."""
    compilers = [c for c in (os.environ.get("CXX"), "g++", "clang++", "cl") if c]
    if not any(map(shutil.which, compilers)):
        raise SubjectError(f"subject 'torch-compile' needs a C++ compiler: there is none of {', '.join(compilers)}")
    # what is compiled too often is run without: then another subject would be judged
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 1_000_000
    eager = for_torch.subject()
    return replace(
        eager,
        name="torch-compile",
        functions={name: torch.compile(function) for name, function in eager.functions.items()},
        classes={},
        recipe=lambda name: (
            f"from nnspec.adapters.for_torch_compile import subject\n{name} = subject().functions[{name!r}]"
        ),
        forget=torch.compiler.reset,
    )
