#!/usr/bin/env bash
# The device tier on a CUDA machine: exactness, hit rates, and speed at several sizes of --moe-cache-mib, with
# upstream's own cache (HOTSET=off) and with our policies.
#
#   benches/gpu.sh OUT-DIR [SIZE]
#
# NO MACHINE OF OURS HAS A GPU: on one, this script has never run; its parts have, on an RPC device. Needs the CUDA toolkit,
# python3, what docs/building.md says, and SIZE (8GB) bytes of memory and of disk, below TMPDIR. Uses and builds for one
# GPU, the first of CUDA_VISIBLE_DEVICES, makes a model of random weights and a widened one, and writes
# OUT-DIR/about.txt, OUT-DIR/{policies,speed,guard}.{txt,csv} and OUT-DIR/*.log. A part that fails does not stop those after it.
set -euo pipefail

if [ $# -lt 1 ]; then
    sed -n 's/^#   //p' "$0" >&2
    exit 2
fi
out=$(realpath -m "$1")
size=${2:-8GB}
cd "$(dirname "$0")/.."
mkdir -p "$out"

# With several GPUs layers would be split between them, and each has counters of its own. nvidia-smi counts in this order.
export CUDA_DEVICE_ORDER=PCI_BUS_ID
first=${CUDA_VISIBLE_DEVICES:-0}
export CUDA_VISIBLE_DEVICES=${first%%,*}
ask() { nvidia-smi -i "$CUDA_VISIBLE_DEVICES" --query-gpu="$1" --format=csv,noheader; }
GPU=$(ask name,driver_version,memory.total,pcie.link.gen.max,pcie.link.width.current)
capability=$(ask compute_cap)
export GPU CUDAARCHS=${CUDAARCHS:-${capability/./}-real}

cargo build --release --features cuda --bins --example random_model
models=$(mktemp -d)
trap 'rm -rf "$models"' EXIT
programs=${CARGO_TARGET_DIR:-target}/release
{
    echo "device  $GPU; compiled for $CUDAARCHS"
    "$programs/examples/random_model" "$models/random.gguf" --size "$size" --layers 32 --experts 128 --width 2048
    "$programs/hotset" widen models/polyglot-moe.gguf --factor 16 -o "$models/polyglot.gguf"
} | tee "$out/about.txt"

failed=
part() {
    local name=$1
    shift
    "$@" 2>&1 | tee "$out/$name.log" || failed+=" $name"
}
# The tests that need a GPU are ignored elsewhere, by name.
part tests cargo test --release --features cuda --test device -- --ignored gpu
part policies benches/device.sh policies "$models/polyglot.gguf" "$out"
part speed benches/device.sh speed "$models/random.gguf" "$out"
part guard benches/device.sh guard "$models/random.gguf" "$out"
if [ -n "$failed" ]; then
    echo "failed:$failed" | tee -a "$out/about.txt" >&2
    exit 1
fi
