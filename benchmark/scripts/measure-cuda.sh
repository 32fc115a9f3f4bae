#!/usr/bin/env bash
# Measures a challenge on a CUDA GPU beside PyTorch in the same run, and writes the figures as JSON.
set -euo pipefail

usage() {
    cat <<'TEXT'
Measures a challenge on a CUDA GPU beside PyTorch in the same run, and writes the figures as JSON.

Usage: measure-cuda.sh --program FILE [--device cuda:N] [--python PYTHON] [--memory-max BYTES] [--output FILE]

  --program FILE      gristmill with CUDA, as build-cuda.sh makes it
  --device cuda:N     which GPU [default: cuda:0]
  --python PYTHON     a Python with PyTorch, for the comparison and for CUDA's libraries where the system has none;
                      without PyTorch there is no comparison [default: python3]
  --memory-max BYTES  most memory to fill, such as 16GiB [default: what is free]
  --output FILE       where the JSON goes [default: stdout]

The driver compiles the kernels at their first use, which the program does before anything is timed.

Example: benchmark/scripts/measure-cuda.sh --program ./gristmill-cuda-90 --output h200.json
TEXT
}

program=
device=cuda:0
python=python3
memory=
output=/dev/stdout
while [ $# -gt 0 ]; do
    case $1 in
        --program | --device | --python | --output)
            [ $# -ge 2 ] || { echo "$1 needs a value; see --help" >&2; exit 2; }
            declare "${1#--}=$2"
            shift 2
            ;;
        --memory-max)
            [ $# -ge 2 ] || { echo "$1 needs a value; see --help" >&2; exit 2; }
            memory=$2
            shift 2
            ;;
        -h | --help) usage; exit 0 ;;
        *) echo "there is no option '$1'; see --help" >&2; exit 2 ;;
    esac
done
[ -n "$program" ] || { echo "--program is missing; see --help" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# PyTorch's wheels bring cuBLAS and cuRAND, for machines that have nothing but the driver.
libraries=$("$python" - <<'PYTHON' || true
import pathlib, site
for base in site.getsitepackages() + [site.getusersitepackages()]:
    for library in pathlib.Path(base).glob("nvidia/**/lib"):
        print(library)
PYTHON
)
LD_LIBRARY_PATH=$(printf '%s\n' "$libraries" | paste -sd: -)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH

"$program" benchmark devices --json > "$work/devices.json"
run=("$program" benchmark run --device "$device" --offline "$work/proof.bin" --json)
[ -z "$memory" ] || run+=(--memory-max "$memory")
seconds() { date +%s.%N; }
started=$(seconds)
"${run[@]}" > "$work/run.json"
between=$(seconds)
"$program" benchmark verify "$work/proof.bin" --json > "$work/verify.json"
ended=$(seconds)
echo null > "$work/torch.json"
if "$python" -c 'import torch' 2> /dev/null; then
    "$python" "$here/torch_peak.py" --device "$device" --run "$work/run.json" > "$work/torch.json"
else
    echo "$python has no PyTorch: there is nothing to compare with" >&2
fi
python3 "$here/record.py" --folder "$work" --run-seconds "$started" "$between" --verify-seconds "$between" "$ended" > "$output"
