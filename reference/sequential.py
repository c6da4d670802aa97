"""Modules that run one after the other. Page: spec/sequential.md"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, overload

from nnspec.reference.module import Module, Pullback


class Sequential(Module):
    """Modules that run one after the other, each on the output of the one before.

    The modules are attributes named "0", "1", …, which are the keys of the state. Raises TypeError for an object that
    is not a module.

    By construction: sequential.mode.reaches-all, sequential.parameters.complete, sequential.parameters.shared-once,
    sequential.iteration.order, sequential.length.count.
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Sequential:
        """Add a module at the end, and return the Sequential itself.

        By construction: sequential.append.runs, sequential.append.state, sequential.append.returns-self.
        """
        if not isinstance(module, Module):  # [sequential.refuses.non-module]
            raise TypeError(f"{module!r}: expected a Module")
        # [sequential.state.keys]
        setattr(self, str(len(self)), module)
        return self

    def forward(self, x: Any) -> Any:
        """Return the output of the last module; without modules, x itself.

        By construction: sequential.call.nested, sequential.call.current, sequential.call.empty,
        sequential.input.unchanged.
        """
        for module in self:  # [sequential.call.order]
            x = module(x)
        return x

    def vjp(self, x: Any) -> tuple[Any, Pullback]:
        """Return forward(x) and its pullback, which runs the pullbacks of the modules, the last one first.

        By construction: sequential.gradient.nested, sequential.gradient.empty, sequential.gradient.unchanged,
        sequential.gradient.parameters, sequential.gradient.x.
        """
        pullbacks = []
        for module in self:  # a module that stands at two places has a pullback for each: [sequential.gradient.twice]
            x, through = module.vjp(x)
            pullbacks.append(through)

        def pull(cotangent: Any) -> Any:
            for through in reversed(pullbacks):
                cotangent = through(cotangent)
            return cotangent

        return x, pull

    def __iter__(self) -> Iterator[Module]:
        # Not children(), which has a module at two places only once: [sequential.call.twice]
        return iter([m for m in vars(self).values() if isinstance(m, Module)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        """Return the module at an index, or a new Sequential of the modules in a slice, by the rules of lists.

        By construction: sequential.slice.step, sequential.slice.reversed, sequential.slice.shares,
        sequential.slice.independent, sequential.index.negative, sequential.refuses.negative-index,
        sequential.slice.range, sequential.index.position, sequential.refuses.index.
        """
        modules = list(self)
        if isinstance(index, slice):
            return Sequential(*modules[index])
        return modules[index]
