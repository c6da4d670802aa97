"""The format in which nnspec asks a program for results: a line of JSON, then raw arrays. Its page is spec/protocol.md.

Nothing here needs more than NumPy and the standard library, so that scripts can carry it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy knows bfloat16 by it
import numpy as np

VERSION = 1
CARRIED = ("asking", "called", "differentiated")  # with which a script asks a program
DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool"),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
)  # of arrays that may cross
ANSWERS = ("arrays", "refused", "unsupported", "capabilities")  # of which an answer has one
LONGEST = 1 << 20  # bytes of a header
LARGEST = 1 << 30  # bytes of the arrays of an answer

Arrays = dict[str, np.ndarray]
Ask = Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], Arrays]  # a request and its arrays -> those of the answer


class WrongAnswer(ValueError):
    """The program did not answer as the page says; the message says what it answered."""


def packed(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a message: the header with name, dtype and shape of each array, a line feed, and the arrays."""
    about = [{"name": n, "dtype": a.dtype.name, "shape": [*a.shape]} for n, a in arrays.items()]
    line = json.dumps({"nnspec": 1, **header, "arrays": about}).encode() + b"\n"
    return line + b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays.values())


def unpacked(about: Sequence[Mapping[str, Any]], data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays whose bytes follow a header, by name."""
    found, end = {}, 0
    for one in about:
        dtype = np.dtype(one["dtype"])
        begin, end = end, end + prod(one["shape"]) * dtype.itemsize
        array = np.frombuffer(data[begin:end], dtype.newbyteorder("<")).reshape(one["shape"])
        found[one["name"]] = array.astype(dtype)
    return found


def size_of(about: Sequence[Mapping[str, Any]]) -> int:
    """Return how many bytes of arrays follow a header."""
    return sum(prod(one["shape"]) * np.dtype(one["dtype"]).itemsize for one in about)


def answer_of(line: bytes) -> dict[str, Any]:
    """Return the header of an answer. Raises WrongAnswer for what is none."""
    shown = line[:80].decode("utf-8", "backslashreplace").rstrip("\n")
    try:
        header = json.loads(line)
    except ValueError:
        raise WrongAnswer(f"answered {shown!r}, expected a line of JSON") from None
    if not isinstance(header, dict) or header.get("nnspec") != VERSION:
        raise WrongAnswer(f'answered {shown!r}, expected an object with "nnspec": {VERSION}, the protocol\'s version')
    kinds = [kind for kind in ANSWERS if kind in header]
    if len(kinds) != 1:
        raise WrongAnswer(f"answered {shown!r}, expected one of {', '.join(ANSWERS)}")
    value = header[kinds[0]]
    if kinds[0] in ("refused", "unsupported") and not isinstance(value, str):
        raise WrongAnswer(f"answered {kinds[0]} with {type(value).__name__}, expected the reason, a string")
    for one in _listed(value) if kinds[0] == "arrays" else ():
        _check_array(one)
    if kinds[0] == "arrays" and (size := size_of(value)) > LARGEST:
        raise WrongAnswer(f"answered with {size} bytes of arrays, too many to be judged")
    return header


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise WrongAnswer(f"answered arrays with {type(value).__name__}, expected a list")
    return value


def _check_array(one: Any) -> None:
    """Raise WrongAnswer unless an entry of "arrays" has a name, a dtype and a shape."""
    if not isinstance(one, dict) or not isinstance(one.get("name"), str):
        raise WrongAnswer(f"answered with the array {str(one)[:80]}, expected an object with name, dtype and shape")
    name, dtype, shape = one["name"][:80], one.get("dtype"), one.get("shape")
    if dtype not in DTYPES:
        raise WrongAnswer(f"answered {name} with dtype {str(dtype)[:80]!r}, expected one of {', '.join(DTYPES)}")
    sizes = shape if isinstance(shape, list) else [None]
    if not all(type(size) is int and 0 <= size < 2**40 for size in sizes) or len(sizes) > 32:
        raise WrongAnswer(f"answered {name} with shape {str(shape)[:80]}, expected a list of sizes")
    if "offset" in one and not (type(one["offset"]) is int and 0 <= one["offset"] < 2**40):
        raise WrongAnswer(f"answered {name} with offset {str(one['offset'])[:80]}, expected a number of bytes")


# -- a program's blocks as functions; scripts carry these --------------------------------------------------------------


def asking(command: Sequence[str], folder: str) -> Callable[..., dict[str, np.ndarray]]:
    """Return a function that asks a program, which is started in a folder, and returns the arrays of the answer."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder)
    assert process.stdin is not None
    assert process.stdout is not None
    write, read = process.stdin, process.stdout

    def ask(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            write.write(packed(header, arrays))
            write.flush()
        except BrokenPipeError:
            pass  # it has ended, as the end of its output tells
        line = read.readline()
        if not line:
            sys.exit(f"the program ended with code {process.wait()}")
        answer = json.loads(line)
        if "arrays" not in answer:
            raise RuntimeError(str(answer))
        return unpacked(answer["arrays"], read.read(size_of(answer["arrays"])))

    return ask


def called(ask: Callable[..., Any], block: str, names: Sequence[str], results: Sequence[str]) -> Callable[..., Any]:
    """Return a block's function, which a program computes. `names` are its operands; none: however many there are."""

    def function(*given: Any, **arguments: Any) -> Any:
        equation = [("equation", a) for a in given if isinstance(a, str)]
        operands = [a for a in given if not isinstance(a, str)]
        order = names or [f"operand{n}" for n in range(len(operands))]
        arrays = {n: a for n, a in zip(order, operands, strict=False) if a is not None}
        header = {"request": "forward", "block": block, "arguments": {**dict(equation), **arguments}}
        found = ask(header, arrays)
        return found.get(results[0]) if len(results) == 1 else tuple(found.get(n) for n in results)

    return function


def differentiated(
    ask: Callable[..., Any], block: str, names: Sequence[str], results: Sequence[str]
) -> Callable[..., Any]:
    """Return the vjp of a block's function, which a program computes: one gradient for each operand, or None."""

    def vjp(cotangent: Any, *given: Any, **arguments: Any) -> Any:
        equation = [("equation", a) for a in given if isinstance(a, str)]
        operands = [a for a in given if not isinstance(a, str)]
        order = names or [f"operand{n}" for n in range(len(operands))]
        of_results = cotangent if isinstance(cotangent, tuple) else (cotangent,)
        labels = ["cotangent", *(f"cotangent_{n}" for n in results[1:])]
        arrays = {n: a for n, a in zip([*labels[: len(of_results)], *order], [*of_results, *operands], strict=False)}
        arrays = {n: a for n, a in arrays.items() if a is not None}
        header = {"request": "gradients", "block": block, "arguments": {**dict(equation), **arguments}}
        found = ask(header, arrays)
        return [found.get(n) for n in order[: len(operands)]]

    return vjp
