#!/usr/bin/env bash
# Builds gristmill with CUDA on a machine that has neither a GPU nor CUDA: nvcc comes from Python wheels.
set -euo pipefail

usage() {
    cat <<'TEXT'
Builds gristmill with CUDA on a machine that has neither a GPU nor CUDA installed.

Usage: build-cuda.sh [--capability N] [--folder FOLDER] [--output FILE]

  --capability N    compute capability of the GPU without the dot: 86, 89, 90, 120 ... [default: 90]
                    90 builds for Hopper alone; nvidia-smi --query-gpu=compute_cap --format=csv tells yours
  --folder FOLDER   where nvcc and the build are kept, about 3 GB [default: target/cuda]
  --output FILE     where the program goes [default: FOLDER/gristmill-cuda-N]

Needs cargo, gcc with libstdc++, python3 with pip, and a network for the first run. Nothing is installed outside FOLDER.
The program opens CUDA's libraries when it runs: it starts everywhere, and computes on the CPU where they are missing.

Example: benchmark/scripts/build-cuda.sh --capability 89
TEXT
}

capability=90
folder=
output=
while [ $# -gt 0 ]; do
    case $1 in
        --capability | --folder | --output)
            [ $# -ge 2 ] || { echo "$1 needs a value; see --help" >&2; exit 2; }
            declare "${1#--}=$2"
            shift 2
            ;;
        -h | --help) usage; exit 0 ;;
        *) echo "there is no option '$1'; see --help" >&2; exit 2 ;;
    esac
done
case $capability in
    '' | *[!0-9]*) echo "the compute capability is a number without a dot, such as 89, not '$capability'" >&2; exit 2 ;;
esac

root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${folder:-$root/target/cuda}
output=${output:-$folder/gristmill-cuda-$capability}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

# CUDA 13.0, which drivers of the 580 series and newer run. Unpinned wheels are newer than that.
if [ ! -e "$folder/wheels/installed" ]; then
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder/wheels" \
        nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
        nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
    touch "$folder/wheels/installed"
fi
cuda=$folder/wheels/nvidia/cu13

# candle links the CUDA runtime by its shared name, which the wheel does not hold: the static one goes in instead.
mkdir -p "$folder/link"
echo "INPUT($cuda/lib/libcudart_static.a)" > "$folder/link/libcudart.so"

# candle asks for CUDA's libraries at link time. Opened at run time instead, none has to be on this machine, and the
# program starts without them on any other: one word in candle's manifest.
cd "$root"
cargo fetch --locked
manifest=$(cargo metadata --format-version 1 --locked --features cuda |
    python3 -c 'import json, sys
print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "candle-core"))')
rm -rf "$folder/candle-core"
cp -r "$(dirname "$manifest")" "$folder/candle-core"
sed -i 's/"dynamic-linking"/"dynamic-loading"/' "$folder/candle-core/Cargo.toml"
grep -q '"dynamic-loading"' "$folder/candle-core/Cargo.toml" || {
    echo "this version of candle-core asks for CUDA in another way; see $folder/candle-core/Cargo.toml" >&2
    exit 1
}

# The lock file names the source of every crate, also of the one that is replaced here: it is put back afterwards.
cp Cargo.lock "$folder/Cargo.lock.before"
trap 'cp "$folder/Cargo.lock.before" "$root/Cargo.lock"' EXIT
CUDA_HOME=$cuda CUDA_PATH=$cuda CUDA_COMPUTE_CAP=$capability CUDARC_CUDA_VERSION=13000 \
    CUDAFORGE_THREADS=$(nproc) PATH=$cuda/bin:$PATH LIBRARY_PATH=$folder/link${LIBRARY_PATH:+:$LIBRARY_PATH} \
    CARGO_TARGET_DIR=$folder/build \
    cargo build --release --bin gristmill --features cuda \
    --config "patch.crates-io.candle-core.path=\"$folder/candle-core\""
strip -o "$output" "$folder/build/release/gristmill"
echo "$output" >&2
