"""The subject: the implementation under test, as functions and as classes over one array library."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from nnspec.adapters.blame import KnownDefect, Unsupported, Unusable, theirs
from nnspec.adapters.claims import DERIVATIVES, FORMS, Lacks, Refusal, SubjectError, parameters
from nnspec.adapters.modules import Modules, entries
from nnspec.adapters.signatures import SIGNATURES, Arrays

__all__ = [
    "DERIVATIVES", "FORMS", "Lacks", "Refusal", "Subject", "SubjectError", "Unsupported", "entries", "parameters",
]  # fmt: skip


class Subject(Modules):
    """An implementation under test. Calls take NumPy arrays by name, and return NumPy arrays, in either form."""

    def call(self, stem: str, form: str, arrays: Arrays, arguments: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        """Call a block on NumPy arrays; return the results as NumPy arrays, in the order of the block's signature."""
        self._avoid_known_defect(stem, arrays, arguments)
        if form == "function":
            return self._call_function(stem, arrays, arguments)
        module, _ = self.build(stem, arrays, arguments)
        return self.apply(stem, module, arrays)

    def _avoid_known_defect(self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]) -> None:
        if hasattr(self.framework, "known_defect") and (defect := self.framework.known_defect(stem, arrays, arguments)):
            raise KnownDefect(defect)

    def gradients(
        self, stem: str, form: str, arrays: Arrays, arguments: Mapping[str, Any], wanted: Collection[str] | None = None
    ) -> dict[str, np.ndarray | None]:
        """Return operand -> gradient, None where the subject has none. `wanted`: for these operands alone.

        The cotangents of the results are among the arrays; their names begin with "cotangent". In the class form the
        parameters have the keys of the module's state.
        """
        self._avoid_known_defect(stem, arrays, arguments)
        cotangents = {n: a for n, a in arrays.items() if n.startswith("cotangent")}
        operands = {n: a for n, a in arrays.items() if n not in cotangents}
        given = [None if a is None else self.to_native(a) for a in cotangents.values()]
        if form == "class":
            module, [x] = self.build(stem, operands, arguments)
            found = self.framework.differentiate_module(module, x, given[0])
            found = self.roles(stem, type(module), entries(operands)).page(found)
        else:
            names, natives, keywords = self.operands(stem, operands, arguments)
            differentiates = SIGNATURES[stem].differentiates
            chosen = [operands.get(n) is not None and differentiates(n, wanted) for n in names]
            function = SIGNATURES[stem].function
            assert function is not None
            if hasattr(self.framework, "vjp"):
                gradients = self.framework.differentiate(self.functions[function], natives, keywords, chosen, given)
            else:
                own = self.functions[f"{function}_vjp"]
                gradients = self.framework.by_own_vjp(own, natives, keywords, chosen, given)
            found = {n: g for n, g, c in zip(names, gradients, chosen, strict=True) if c}
        return {n: None if g is None else self.framework.to_numpy(g) for n, g in found.items()}

    def second(self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return second derivatives of a function's first result, for the `tangent` of x that is among the arrays.

        With a `cotangent`: the gradients of Σ tangent · (gradient of x) for the cotangent and each operand. Without:
        as "y", the second derivative of the result along the tangent. Gradients of unused operands may be omitted.
        """
        operands = {n: a for n, a in arrays.items() if n not in ("tangent", "cotangent")}
        given = {n: self.to_native(a) for n, a in arrays.items() if n not in operands and a is not None}
        names, natives, keywords = self.operands(stem, operands, arguments)
        name, differentiates = SIGNATURES[stem].function, SIGNATURES[stem].differentiates
        assert name is not None
        function = self.functions[name]
        if "cotangent" not in given:
            y = self.framework.push_forward_twice(function, natives, keywords, given["tangent"])
            return {"y": self.framework.to_numpy(y)}
        wanted = [operands.get(n) is not None and differentiates(n, None) for n in names]
        if hasattr(self.framework, "vjp"):
            found = self.framework.differentiate_again(function, natives, keywords, wanted, **given)
        else:
            own = self.functions[f"{name}_vjp_vjp"]
            found = self.framework.by_own_vjp_vjp(own, natives, keywords, wanted, **given)
        named = zip(("cotangent", *names), found, strict=True)
        return {n: self.framework.to_numpy(g) for n, g in named if g is not None}

    def operands(
        self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]
    ) -> tuple[list[str], list[Any], dict[str, Any]]:
        """Return the names of a function's positional operands, these operands, and its keywords."""
        lacks = self.lacks(stem, "function")
        natives = {n: None if a is None else self.to_native(a) for n, a in arrays.items() if n not in lacks}
        keywords = {n: v for n, v in arguments.items() if n not in lacks}
        if "equation" in keywords:
            natives = {"equation": keywords.pop("equation"), **natives}
        return list(natives), list(natives.values()), keywords

    def _call_function(self, stem, arrays, arguments) -> tuple[np.ndarray, ...]:
        signature = SIGNATURES[stem]
        assert signature.function is not None
        _, natives, keywords = self.operands(stem, arrays, arguments)
        with theirs():
            results = self.functions[signature.function](*natives, **keywords)
        results = results if isinstance(results, tuple | list) else (results,)
        if len(results) != len(signature.results):
            names = ", ".join(signature.results)
            raise Unusable(f"returned {len(results)} results, expected {len(signature.results)}: {names}")
        return tuple(self.framework.to_numpy(r) for r in results)
