"""The subject: the implementation under test, as functions and as classes over one array library."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from nnspec.adapters.blame import Lacks, Unsupported, Unusable, theirs
from nnspec.adapters.claims import DERIVATIVES, FORMS, Refusal, SubjectError, parameters
from nnspec.adapters.modules import Modules
from nnspec.adapters.roles import transposed
from nnspec.adapters.signatures import COTANGENT, SIGNATURES, TANGENT, Arrays, cotangents, entries, operands

__all__ = [
    "DERIVATIVES", "FORMS", "Lacks", "Refusal", "Subject", "SubjectError", "Unsupported", "entries", "parameters",
]  # fmt: skip


class Subject(Modules):
    """An implementation under test. Calls take NumPy arrays by name, and return NumPy arrays, in either form."""

    def call(self, stem: str, form: str, arrays: Arrays, arguments: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        """Call a block on NumPy arrays; return the results as NumPy arrays, in the order of the block's signature."""
        if form == "function":
            return self._call_function(stem, arrays, arguments)
        return self.apply(stem, self.build(stem, arrays, arguments), arrays)

    def gradients(
        self, stem: str, form: str, arrays: Arrays, arguments: Mapping[str, Any], wanted: Collection[str] | None = None
    ) -> dict[str, np.ndarray | None]:
        """Return operand -> gradient, None where the subject has none. `wanted`: for these operands alone.

        The cotangents of the results are among the arrays. In the class form the parameters have the page's keys.
        """
        if form == "class":
            return self.module_gradients(stem, self.build(stem, arrays, arguments), arrays, wanted=wanted)
        self._avoid_known_defect(stem, arrays, arguments)
        signature = SIGNATURES[stem]
        names, natives, keywords = self.operands(stem, arrays, arguments)
        chosen = signature.asked(names, arrays, wanted)
        given = [None if a is None else self.to_native(a) for a in cotangents(arrays).values()]
        differentiate, function = self.way_back(stem)
        gradients = getattr(self.framework, differentiate)(self.functions[function], natives, keywords, chosen, given)
        found = {n: g for n, g, c in zip(names, gradients, chosen, strict=True) if c}
        return {n: None if g is None else self.framework.to_numpy(g) for n, g in found.items()}

    def way_back(self, stem: str, *, twice: bool = False) -> tuple[str, str]:
        """How a function is differentiated: a method of the adapter, and the name of the function that it is given."""
        signature = SIGNATURES[stem]
        if hasattr(self.framework, "vjp"):
            return "differentiate_again" if twice else "differentiate", str(signature.function)
        return ("by_own_vjp_vjp", signature.vjp_vjp) if twice else ("by_own_vjp", signature.vjp)

    def module_gradients(
        self,
        stem: str,
        module: Any,
        arrays: Arrays,
        page: Collection[str] | None = None,
        wanted: Collection[str] | None = None,
    ) -> dict[str, np.ndarray | None]:
        """The gradients of a call of a module for x and, by the page's keys, for its parameters.

        `page`: the page's keys of its entries, where these are not among the arrays. `wanted`: by the page's keys; all
        others are frozen.
        """
        x, cotangent = (self.to_native(np.asarray(arrays[name])) for name in ("x", COTANGENT))
        roles = self.roles(stem, type(module), page or entries(arrays), module)
        if wanted is None:
            own = self.framework.differentiate_module(module, x, cotangent)
        else:
            keys = [*roles.own(dict.fromkeys(wanted))]
            own = self.framework.differentiate_part(module, x, cotangent, keys)
        found = roles.page(own, transposed)
        return {n: None if g is None else self.framework.to_numpy(g) for n, g in found.items()}

    def second(self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return second derivatives of a function's first result, for the `tangent` of x that is among the arrays.

        With a `cotangent`: the gradients of Σ tangent · (gradient of x) for the cotangent and each operand. Without:
        as "y", the second derivative of the result along the tangent. Gradients of unused operands may be omitted.
        """
        names, natives, keywords = self.operands(stem, arrays, arguments)
        signature, tangent = SIGNATURES[stem], self.to_native(np.asarray(arrays[TANGENT]))
        if arrays.get(COTANGENT) is None:
            function = self.functions[str(signature.function)]
            y = self.framework.push_forward_twice(function, natives, keywords, tangent)
            return {"y": self.framework.to_numpy(y)}
        wanted, cotangent = signature.asked(names, arrays, None), self.to_native(np.asarray(arrays[COTANGENT]))
        again, name = self.way_back(stem, twice=True)
        found = getattr(self.framework, again)(self.functions[name], natives, keywords, wanted, cotangent, tangent)
        named = zip((COTANGENT, *names), found, strict=True)
        return {n: self.framework.to_numpy(g) for n, g in named if g is not None}

    def operands(
        self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]
    ) -> tuple[list[str], list[Any], dict[str, Any]]:
        """Return the names of a function's positional operands, these operands, and its keywords."""
        given = {n: None if a is None else self.to_native(a) for n, a in operands(arrays).items()}
        natives, keywords = SIGNATURES[stem].passed(given, arguments, self.lacks(stem, "function"))
        return list(natives), list(natives.values()), keywords

    def _call_function(self, stem, arrays, arguments) -> tuple[np.ndarray, ...]:
        self._avoid_known_defect(stem, arrays, arguments)
        signature = SIGNATURES[stem]
        _, natives, keywords = self.operands(stem, arrays, arguments)
        with theirs():
            results = self.functions[str(signature.function)](*natives, **keywords)
        results = results if isinstance(results, tuple | list) else (results,)
        if len(results) != len(signature.results):
            names = ", ".join(signature.results)
            raise Unusable(f"returned {len(results)} results, expected {len(signature.results)}: {names}")
        return tuple(self.framework.to_numpy(r) for r in results)
