"""Answers nnspec's requests with functions of Python: import `serve` in a program. The format: spec/protocol.md.

serve({"relu": lambda x: np.maximum(x, 0)}, {"relu": lambda cotangent, x: {"x": cotangent * (x > 0)}})

nnspec check --process 'python my_program.py'
"""

import json
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
    about = {name: {"gradients": name in gradients, **declared.get(name, {})} for name in functions}
    while line := sys.stdin.buffer.readline():
        request, arrays = json.loads(line), {}
        for one in request["arrays"]:
            dtype = np.dtype(one["dtype"]).newbyteorder("<")  # bfloat16 needs `import ml_dtypes`
            data = sys.stdin.buffer.read(prod(one["shape"]) * dtype.itemsize)
            arrays[one["name"]] = np.frombuffer(data, dtype).reshape(one["shape"]).astype(dtype.newbyteorder("="))
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
        out.write(json.dumps({"nnspec": 1, **answer}).encode() + b"\n")
        out.writelines(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in found.values())
        out.flush()
