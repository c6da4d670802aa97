"""Answers the vectors of a folder, which `nnspec export` wrote, with a program that speaks the protocol.

    nnspec export --block conv2d FOLDER
    python answer.py FOLDER ./my_conv
    nnspec judge FOLDER

For a program that can read and write the files itself, this one shows how they are used.
"""

import json
import subprocess
import sys
from math import prod
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file  # it has no bfloat16


def main(folder, command):
    """Ask the program for each vector, and write its answers."""
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    vectors = json.loads((folder / "manifest.json").read_text())["vectors"]
    for file in {vector["file"] for vector in vectors}:
        operands = load_file(folder / "operands" / f"{file}.safetensors")
        arrays, others = {}, {}
        for vector in (vector for vector in vectors if vector["file"] == file):
            number, given = vector["id"], {n: operands[f"{vector['id']}.{n}"] for n in vector["operands"]}
            header = {"nnspec": 1, **{key: vector[key] for key in ("request", "block", "arguments")}}
            header["arrays"] = [{"name": n, "dtype": a.dtype.name, "shape": [*a.shape]} for n, a in given.items()]
            program.stdin.write(json.dumps(header).encode() + b"\n" + b"".join(a.tobytes() for a in given.values()))
            program.stdin.flush()
            answer = json.loads(program.stdout.readline())
            if "arrays" not in answer:
                others[number] = {key: answer[key] for key in ("refused", "unsupported") if key in answer}
            for one in answer.get("arrays", ()):
                dtype = np.dtype(one["dtype"])
                data = program.stdout.read(prod(one["shape"]) * dtype.itemsize)
                arrays[f"{number}.{one['name']}"] = np.frombuffer(data, dtype).reshape(one["shape"])
        save_file(arrays, folder / "answers" / f"{file}.safetensors")
        (folder / "answers" / f"{file}.json").write_text(json.dumps(others))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
