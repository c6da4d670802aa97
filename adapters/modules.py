"""A subject's classes as modules: built, loaded and read by the page's keys, and called."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from nnspec.adapters.blame import Lacks, Unsupported, theirs
from nnspec.adapters.claims import NO_DEFAULT, Claims, parameters, required
from nnspec.adapters.objects import Shape
from nnspec.adapters.roles import COUNT, Roles, find_roles, has, transposed
from nnspec.adapters.signatures import SIGNATURES, Arrays, entries

Shapes = dict[str, Shape]


class Modules(Claims):
    """A subject whose classes can be built and called."""

    def build(self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]) -> Any:
        """Return a block as a module with the arrays as its state, in the mode that `training` says."""
        self._avoid_known_defect(stem, arrays, arguments)
        cls = self._class(SIGNATURES[stem], arrays)
        positional, keywords, training = self.constructor(stem, arrays, arguments)
        dtype = next(a.dtype for a in arrays.values() if a is not None)
        module = self.framework.construct(cls, positional, keywords, dtype)
        self.load(stem, module, entries(arrays))
        self._without(stem, module, arrays)
        self.framework.set_training(module, training)
        return module

    def _without(self, stem: str, module: Any, arrays: Arrays) -> None:
        """Raise Lacks where a module has an entry that is absent among the arrays, and no argument to leave it out.

        A class that has the argument and keeps the entry all the same only declines the case.
        """
        if not (absent := [n for n, a in arrays.items() if a is None and n in ("weight", "bias")]):
            return
        known = self.roles(stem, type(module), {*entries(arrays), *absent})
        for name in absent:
            if name in known.keys and has(self, module, known.keys[name]):
                accepted = parameters(type(module))
                kind = Unsupported if accepted is None or accepted & {"bias", "affine"} else Lacks
                raise kind(f"{type(module).__name__} always has a {name}")

    def apply(self, stem: str, module: Any, arrays: Arrays) -> tuple[np.ndarray, ...]:
        """Call a module that has the arrays' entries; return the results that the block's signature names."""
        y, further = self.called(module, self.inputs(arrays)), SIGNATURES[stem].results[1:]
        state = self.state(stem, module, entries(arrays)) if further else {}
        if missing := [key for key in further if key not in state]:
            raise Unsupported(f"{type(module).__name__} has no state entry in the role of {missing[0]}")
        return (y, *(state[key] for key in further))

    def called(self, module: Any, operands: Sequence[Any]) -> np.ndarray:
        """Call a module; return its result."""
        with theirs():
            y = module(*operands)
        return self.framework.to_numpy(y)

    # -- entries of a module, by the page's keys -----------------------------------------------------------------------

    def roles(self, stem: str, cls: Any, page: Collection[str], module: Any = None) -> Roles:
        """Return the roles of a class's entries, for the page's keys. `module`: a new one, if there is one already."""
        found = self._roles.get(key := (cls, frozenset(page)))
        if found is None:
            found = self._roles[key] = find_roles(self, stem, cls, page, module)
        return found

    def known_roles(self, stem: str, arrays: Arrays) -> Roles:
        """Return the roles for the class that a call with these arrays builds."""
        return self.roles(stem, self._class(SIGNATURES[stem], arrays), entries(arrays))

    def load(
        self, stem: str, module: Any, given: Mapping[str, np.ndarray], page: Collection[str] | None = None
    ) -> None:
        """Put arrays into a module by the page's keys, or its own. Unsupported where it has nothing in a role.

        `page`: the page's keys of all its entries, where not all of them are given.
        """
        page = {key for key in given if not key.endswith(COUNT)} if page is None else page
        known, name = self.roles(stem, type(module), page, module), type(module).__name__
        if absent := [key for key in known.absent if key in given]:
            # no Lacks: a layer whose weight cannot be found is not judged, and must not count as conforming
            raise Unsupported(f"{name} has no state entry in the role of {absent[0]}")
        try:
            self.framework.load_entries(module, known.own(given, transposed))
        except KeyError as key:
            raise Unsupported(f"{name} has no state entry {key}") from None

    def state(self, stem: str, module: Any, page: Collection[str], *, saved: bool = False) -> dict[str, np.ndarray]:
        """Return key -> copy, of a module's entries: by the page's key if they have a role, else by their own key.

        `saved` leaves out what is in a role and yet not part of what the module saves.
        """
        stored, known = self.framework.state(module), self.roles(stem, type(module), page, module)
        found = {key: stored[own] for key, own in known.keys.items() if own in stored}
        if not saved or not hasattr(module, "state_dict"):  # where nothing says what is saved, all is
            unsaved = ((key, own) for key, own in known.keys.items() if own not in stored)
            found |= {key: self.framework.read(module, own) for key, own in unsaved if has(self, module, own)}
        found |= {key: transposed(found[key]) for key in known.turned & found.keys()}
        if hasattr(module, "state_dict"):
            others = stored
        else:  # nothing says which of its other attributes are part of its state, but for those marked as parameters
            marked = self.framework.held(module)
            others = {key: array for key, array in stored.items() if marked[key].kind == "parameter"}
        roleless = others.keys() - known.keys.values()
        return found | {key: array for key, array in others.items() if key in roleless}

    def registered(self, stem: str, module: Any, page: Collection[str]) -> tuple[Shapes, Shapes | None]:
        """Return the shapes of a module's parameters, and of what else it saves, by the page's keys or its own.

        What is marked as not learned is no parameter. Where the module does not tell its parameters apart, all that it
        saves counts as parameters, and there is no telling what else it saves: None.
        """
        known = self.roles(stem, type(module), page, module)
        saved = {key: a.shape for key, a in self.state(stem, module, page, saved=True).items()}
        saved |= {key: saved[key][::-1] for key in known.turned & saved.keys()}  # as the module has them
        if not hasattr(module, "named_parameters"):
            return saved, None
        with theirs():
            names = [key for key, _ in module.named_parameters()]
        held = self.framework.held(module)
        learned = {key: held[key].shape for key in names if key in held and held[key].kind == "parameter"}
        parameters = known.page(learned)
        return parameters, {key: shape for key, shape in saved.items() if key not in parameters}

    def inputs(self, arrays: Arrays) -> list[Any]:
        """Return the native arrays that a module is called with."""
        return [self.to_native(x) for n, x in arrays.items() if n == "x" and x is not None]

    def constructor(
        self, stem: str, arrays: Arrays, arguments: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
        """Return the positional and keyword arguments of the class for a block, and whether it is in training mode."""
        positional, keywords = SIGNATURES[stem].constructor(arrays, arguments)
        training = keywords.pop("training", arguments.get("training", True))
        cls = self._class(SIGNATURES[stem], arrays)
        accepted = parameters(cls)
        accepted_keywords = {n: v for n, v in keywords.items() if accepted is None or n in accepted}
        return positional, self.completed(stem, cls, accepted_keywords), training

    def completed(self, stem: str, cls: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keywords for a class's constructor, with neutral values for other keywords that it requires."""
        neutral = {**SIGNATURES[stem].arguments, "bias": True, "affine": True, "track_running_stats": True}
        must = required(cls) & neutral.keys() - NO_DEFAULT - keywords.keys()
        return {**{name: neutral[name] for name in must}, **keywords}
