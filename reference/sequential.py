"""Modules that run one after the other. Page: spec/sequential.md"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, overload

from nnspec.reference.module import Module, Pullback


class Sequential(Module):
    """Feeds its input to the first module, that one's output to the second, and so on.

    The modules are attributes named "0", "1", …, and these names are the keys of the state. [sequential.state.keys]
    Raises TypeError for what is not a module.
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Sequential:
        """Add a module at the end; returns the Sequential itself."""
        if not isinstance(module, Module):  # [sequential.refuses.non-module]
            raise TypeError(f"{module!r}: expected a Module")
        # [sequential.append.runs] [sequential.append.state] an attribute is all that a module is, here as anywhere:
        # [sequential.mode.reaches-all] [sequential.parameters.complete] [sequential.parameters.shared-once]
        setattr(self, str(len(self)), module)
        return self  # [sequential.append.returns-self]

    def forward(self, x: Any) -> Any:
        """What the last module makes of it; without modules, x itself. [sequential.call.empty]"""
        for module in self:  # [sequential.call.order] [sequential.call.nested] [sequential.call.current]
            x = module(x)
        return x  # [sequential.input.unchanged]

    def vjp(self, x: Any) -> tuple[Any, Pullback]:
        """forward(x), and its pullback: those of the modules, the last one first."""
        pullbacks = []
        for module in self:  # [sequential.gradient.nested] [sequential.gradient.twice] one for each place
            x, through = module.vjp(x)  # [sequential.gradient.parameters] at the input that the module has there
            pullbacks.append(through)

        def pull(cotangent: Any) -> Any:
            for through in reversed(pullbacks):  # [sequential.gradient.x]
                cotangent = through(cotangent)
            return cotangent  # [sequential.gradient.empty] [sequential.gradient.unchanged]

        return x, pull

    def __iter__(self) -> Iterator[Module]:
        # Not children(), which names a module that stands here twice only once. [sequential.call.twice]
        return iter([m for m in vars(self).values() if isinstance(m, Module)])  # [sequential.iteration.order]

    def __len__(self) -> int:
        return sum(1 for _ in self)  # [sequential.length.count]

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        modules = list(self)  # whose rules these are:
        if isinstance(index, slice):  # [sequential.slice.range] [sequential.slice.step] [sequential.slice.reversed]
            # the same modules in a Sequential of its own: [sequential.slice.shares] [sequential.slice.independent]
            return Sequential(*modules[index])
        # [sequential.index.position] [sequential.index.negative]
        return modules[index]  # [sequential.refuses.index] [sequential.refuses.negative-index]
