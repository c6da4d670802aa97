#!/usr/bin/env bash
# Builds the convolutions in this folder whose compilers are here, and judges each with many cases and long sizes; then
# judges the answers of the first to exported vectors. Takes minutes. Ends with 1 if one does not conform.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
code=0

judge() { # the name of a program, and the command that builds it
    local name=$1
    shift
    "$1" --version >/dev/null 2>&1 || { echo "$name: there is no $1"; return; }
    "$@"
    nnspec check --process "./$name" --block conv2d --profile ci --sizes boundary --out "report-$name" || code=1
}

judge conv_c gcc -std=c99 -O2 -o conv_c "$here/conv2d.c"
judge conv_cpp g++ -std=c++17 -O2 -pthread -o conv_cpp "$here/conv2d.cpp"
judge conv_rs rustc --edition 2021 -O -o conv_rs "$here/conv2d.rs"
if nvidia-smi >/dev/null 2>&1; then
    judge conv_cu nvcc -std=c++17 -o conv_cu "$here/conv2d.cu"
fi
if [[ -x conv_c ]]; then
    nnspec export --block conv2d --dtype float32 --profile ci --sizes boundary vectors
    python "$here/answer.py" vectors ./conv_c
    nnspec judge vectors --out report-vectors || code=1
fi
exit $code
