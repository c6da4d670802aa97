"""How long `nnspec check torch` takes at the quick profile, torch's import included: whole, and block by block.

    python benchmarks/check.py [WORKERS]

Ends with 1 where the whole or the slowest block is above its bar. The bars are for two cores; so many workers are used.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

from nnspec.adapters.signatures import SIGNATURES

WHOLE, BLOCK = 60.0, 10.0  # seconds


def seconds(workers: str, *arguments: str) -> float:
    command = [sys.executable, "-m", "nnspec.conformance.cli", "check", "torch", "--profile", "quick", "-n", workers]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        done = subprocess.run([*command, "--out", folder, *arguments], capture_output=True, text=True)
        taken = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return taken


def main() -> int:
    workers = sys.argv[1] if len(sys.argv) > 1 else "2"
    blocks = {stem: seconds(workers, "--block", stem) for stem in SIGNATURES}
    whole = seconds(workers)
    for stem, taken in sorted(blocks.items(), key=lambda item: -item[1]):
        print(f"{stem:18} {taken:5.1f} s")
    slowest = max(blocks.values())
    print(f"slowest block      {slowest:5.1f} s  (bar {BLOCK:g} s)")
    print(f"all blocks at once {whole:5.1f} s  (bar {WHOLE:g} s)")
    return int(whole > WHOLE or slowest > BLOCK)


if __name__ == "__main__":
    sys.exit(main())
