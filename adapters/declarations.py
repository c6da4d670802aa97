"""What a file, a module or a mapping declares about itself beside its blocks.

    DTYPES = ("float32", "bfloat16")                     # the dtypes that it claims, in place of float32 and float64
    ACCURACY = ("T",)                                    # weaker classes of accuracy: see spec/conventions.md
    GRADIENTS = False                                    # it has no backward pass
    FLUSHES = True                                       # it treats subnormal numbers as 0
    COMPILES_PER_SHAPE = True                            # each new shape is compiled: checks draw few shapes
    TILES = (64, 96)                                     # sizes of its tiles: cases have sizes around them too
    STRIDED = False                                      # it takes contiguous arrays alone: it gets copies
    UNSUPPORTED = {"max_pool2d.kernel.rows-columns": "square windows alone"}  # * and ? stand for anything
    DIFFERS = {"relu.nan.propagates": ("as fmaxf does", "https://…")}  # a reason, or a reason and a link
    DIFFERS = {"batch_norm.running-var.update": ("n", "one pass")}     # an alternative by the page's name, and a reason
    DOMAIN = {"conv2d": {"stride": 1}}                   # the calls for which it claims to work: see `domains`

The first seven may also be mappings from blocks to such values: `GRADIENTS = {"conv2d": False}`. Which identifiers
there are, and which of them are conventions, only the pages know: see `requirements.unknown_declaration`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nnspec.adapters.claims import Difference, SubjectError
from nnspec.adapters.domains import DomainError, read_domains
from nnspec.adapters.names import DTYPES, WEAKER, nearest
from nnspec.adapters.signatures import SIGNATURES

Fields = dict[str, Any]
LARGEST_TILE = 4096  # twice as many and one more is the longest size that is drawn for its sake


def declared(names: Mapping[str, Any], title: str) -> Fields:
    """Return the fields of a Subject that `names` declare. Raises SubjectError for what cannot be declared."""
    fields: Fields = {}
    blocks: dict[str, Fields] = {}
    for name, read in READERS.items():
        if name not in names:
            continue
        value = names[name]
        try:
            if isinstance(value, Mapping):
                for stem, own in value.items():
                    blocks.setdefault(_block(stem), {}).update(read(own))
            else:
                fields |= read(value)
        except _NotAllowed as error:
            raise SubjectError(f"{title}: {name} = {_short(value)}: {error}") from None
    for name, entry in ENTRIES.items():
        value = names.get(name, {})
        try:
            fields[name.lower()] = _entries(value, entry)
        except _NotAllowed as error:
            raise SubjectError(f"{title}: {name} = {_short(value)}: {error}") from None
    if "DOMAIN" in names:
        try:
            fields["domains"] = read_domains(names["DOMAIN"])
        except DomainError as error:
            raise SubjectError(f"{title}: DOMAIN: {error}") from None
    return fields | {"of_block": blocks}


class _NotAllowed(ValueError):
    """A value that cannot be declared; the message says what is expected."""


def _dtypes(value: Any) -> Fields:
    claimed = _names(value, DTYPES)
    if not claimed:
        raise _NotAllowed(f"expected at least one of {', '.join(DTYPES)}")
    return {"dtypes": claimed, "further_dtypes": ()}


def _accuracy(value: Any) -> Fields:
    return {"accuracy": _names(value, WEAKER)}


def _flag(field: str) -> Callable[[Any], Fields]:
    def read(value: Any) -> Fields:
        if not isinstance(value, bool):
            raise _NotAllowed("expected True or False, or a mapping from blocks to True or False")
        return {field: value}

    return read


def _tiles(value: Any) -> Fields:
    several = (value,) if isinstance(value, int) else value
    if not isinstance(several, Iterable) or isinstance(several, str | bytes):
        raise _NotAllowed("expected the sizes of tiles, such as (64, 128)")
    several = tuple(several)
    if wrong := [one for one in several if not isinstance(one, int) or not 2 <= one <= LARGEST_TILE]:
        raise _NotAllowed(f"expected whole numbers from 2 to {LARGEST_TILE}, not {_short(wrong[0])}")
    return {"tiles": several}


def _names(value: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    """One of the known names, or several."""
    several = (value,) if isinstance(value, str) else value
    if not isinstance(several, Iterable) or isinstance(several, bytes):
        raise _NotAllowed(f"expected some of {', '.join(known)}, such as ({known[0]!r},)")
    several = tuple(several)
    if unknown := [one for one in several if not isinstance(one, str) or one not in known]:
        raise _NotAllowed(f"expected some of {', '.join(known)}, not {_short(unknown[0])}")
    return several


def _block(stem: Any) -> str:
    if stem not in SIGNATURES:
        raise _NotAllowed(
            f"{stem!r} is no block{nearest(str(stem), SIGNATURES)}; expected some of {', '.join(SIGNATURES)}"
        )
    return str(stem)


def _entries(value: Any, entry: Callable[[Any], Any]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _NotAllowed("expected a mapping from requirements to reasons, such as {'conv2d.bias.absent': 'reason'}")
    if unnamed := [key for key in value if not isinstance(key, str)]:
        raise _NotAllowed(f"{unnamed[0]!r} is no requirement; expected one such as 'conv2d.bias.absent'")
    return {key: entry(own) for key, own in value.items()}


def _reason(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _NotAllowed(f"{_short(value)}: expected the reason, in words")
    return value


def _difference(value: Any) -> Difference:
    """Return what a reason, a reason and a link, or an alternative before either of these declares."""
    match value:
        case str(reason) | (str(reason),):
            return Difference(_reason(reason))
        case (str(reason), str(link)) if "://" in link:
            return Difference(_reason(reason), link)
        case (str(alternative), str(reason)):
            return Difference(_reason(reason), alternative=_reason(alternative))
        case (str(alternative), str(reason), str(link)) if "://" in link:
            return Difference(_reason(reason), link, _reason(alternative))
    raise _NotAllowed(
        f"{_short(value)}: expected a reason, a reason and a link, ('reason', 'https://…'), or the name of an "
        "alternative and a reason, ('name', 'reason')"
    )


def read_claim(name: str, value: Any) -> Fields:
    """The fields of a Subject that one of DTYPES, ACCURACY and GRADIENTS stands for. Raises ValueError for others."""
    return READERS[name](value)


def read_differences(value: Mapping[str, Any]) -> dict[str, Any]:
    """What DIFFERS = value declares. Raises ValueError for what cannot be declared."""
    return _entries(value, ENTRIES["DIFFERS"])


READERS: dict[str, Callable[[Any], Fields]] = {
    "DTYPES": _dtypes,
    "ACCURACY": _accuracy,
    "GRADIENTS": _flag("differentiable"),
    "FLUSHES": _flag("flushes"),
    "COMPILES_PER_SHAPE": _flag("compiles_per_shape"),
    "TILES": _tiles,
    "STRIDED": _flag("strided"),
}
ENTRIES: dict[str, Callable[[Any], Any]] = {"UNSUPPORTED": _reason, "DIFFERS": _difference}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
