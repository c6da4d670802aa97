"""PyTorch under torch.compile: each function of the subject `torch` compiled, and with it its gradient."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from nnspec.adapters.for_torch import Torch
from nnspec.adapters.subject import Subject, SubjectError

if TYPE_CHECKING:
    import torch


class TorchCompile(Torch):
    """torch's functions through its compiler, which writes C++ and has it compiled for every configuration."""

    name = "torch-compile"
    packages: tuple[str, ...] = ()
    compiles_per_shape = True
    fills = False  # compiled code allocates by itself; deterministic algorithms would be compiled anew

    def __init__(self, profile: str = "quick") -> None:
        compilers = [c for c in (os.environ.get("CXX"), "g++", "clang++", "cl") if c]
        if not any(map(shutil.which, compilers)):
            raise SubjectError(f"subject 'torch-compile' needs a C++ compiler: there is none of {', '.join(compilers)}")
        super().__init__(profile)
        global torch
        import torch

        # torch runs what it compiled too often without compilation: then another subject would be checked
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 1_000_000

    def forget(self) -> None:
        """Free what was compiled."""
        torch.compiler.reset()

    def subject(self) -> Subject:
        """Return the functions of the subject `torch`, compiled."""
        eager = super().subject()
        return replace(
            eager,
            functions={name: torch.compile(function) for name, function in eager.functions.items()},
            classes={},
            recipe=lambda name: (
                f"from nnspec.adapters.for_torch_compile import TorchCompile\n"
                f"{name} = TorchCompile().subject().functions[{name!r}]"
            ),
        )
