"""Answers nnspec's requests with functions of Python: import `serve` in a program. The format: spec/protocol.md.

serve({"relu": lambda x: np.maximum(x, 0)}, {"relu": lambda cotangent, x: {"x": cotangent * (x > 0)}})

nnspec check --process 'python my_program.py'
"""

import json
import mmap
import os
import sys
from math import prod

import numpy as np


class Unsupported(Exception):
    """Raise it for a call that the program does not claim to do. Any other exception is a refusal."""


def serve(functions, gradients=None, blocks=None, **capabilities):
    """Answer requests until standard input ends.

    `functions` has, by block, what takes the operands and arguments by name and returns an array or a tuple of them.
    `gradients` has what takes the cotangent first and returns operand -> gradient. `blocks` has what blocks declare.
    """
    gradients, declared, out = gradients or {}, blocks or {}, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a function prints must not get between the answers
    capabilities = {"maps": "NNSPEC_PIPE" not in os.environ, **capabilities}
    about = {name: {"gradients": name in gradients, **declared.get(name, {})} for name in functions}
    while line := sys.stdin.buffer.readline():
        request, arrays = json.loads(line), {}
        file = open(request["file"], "r+b") if "file" in request else None  # noqa: SIM115  # closed below
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if file else b""
        for one in request["arrays"]:
            dtype, count = np.dtype(one["dtype"]).newbyteorder("<"), prod(one["shape"])  # bfloat16: `import ml_dtypes`
            data = mapped if file else sys.stdin.buffer.read(count * dtype.itemsize)
            array = np.frombuffer(data, dtype, count, one.get("offset", 0)).reshape(one["shape"])
            arrays[one["name"]] = array.astype(dtype.newbyteorder("="), copy=not file)
        found, answer = {}, {}
        try:
            if request["request"] == "capabilities":
                answer = {"capabilities": {"blocks": about, **capabilities}}
            elif request["request"] == "gradients":
                cotangent = arrays.pop("cotangent")
                found = gradients[request["block"]](cotangent, **arrays, **request["arguments"])
            else:
                results = functions[request["block"]](**arrays, **request["arguments"])
                results = results if isinstance(results, tuple) else (results,)
                found = dict(zip(("y", "running_mean", "running_var"), results, strict=False))
        except Unsupported as reason:
            answer = {"unsupported": str(reason)}
        except Exception as error:
            answer = {"refused": f"{type(error).__name__}: {error}"}
        if not answer:
            found = {name: np.asarray(array) for name, array in found.items() if array is not None}
            answer["arrays"] = [{"name": n, "dtype": a.dtype.name, "shape": [*a.shape]} for n, a in found.items()]
        found = {n: a.astype(a.dtype.newbyteorder("<"), order="C", copy=False) for n, a in found.items()}
        if file:
            for one, array in zip(answer.get("arrays", ()), found.values(), strict=True):
                one["offset"] = file.seek(0, os.SEEK_END)
                file.write(array.reshape(-1).view(np.uint8))
            file.close()
        out.write(json.dumps({"nnspec": 1, **answer}).encode() + b"\n")
        out.writelines(() if file else (array.tobytes() for array in found.values()))
        out.flush()
