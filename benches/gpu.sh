#!/usr/bin/env bash
# The device tier on a CUDA machine: exactness, hit rates, and speed at several sizes of --moe-cache-mib, with
# upstream's own cache (HOTSET=off) and with our policies.
#
#   benches/gpu.sh OUT-DIR [SIZE]
#
# NO MACHINE OF OURS HAS A GPU: this script has never run. Needs the CUDA toolkit, python3, what README's "Building" says, and SIZE (8GB)
# bytes of memory and of disk. Builds with --features cuda, makes a model of random weights and a widened one, and
# writes OUT-DIR/{about,speed,policies,guard}.txt and OUT-DIR/*.csv. GPU=name of the device is found by nvidia-smi.
set -euo pipefail

if [ $# -lt 1 ]; then
    sed -n 's/^#   //p' "$0" >&2
    exit 2
fi
out=$(realpath -m "$1")
size=${2:-8GB}
cd "$(dirname "$0")/.."
mkdir -p "$out"
GPU=$(nvidia-smi --query-gpu=name,driver_version,pcie.link.gen.current,pcie.link.width.current --format=csv,noheader | head -1)
export GPU
models=$(mktemp -d)
trap 'rm -rf "$models"' EXIT

cargo build --release --features cuda
cargo run --release --features cuda --example random_model -- "$models/random.gguf" --size "$size" --layers 32 \
    --experts 128 --width 2048 | tee "$out/about.txt"
"${CARGO_TARGET_DIR:-target}/release/hotset" widen models/polyglot-moe.gguf --factor 16 -o "$models/polyglot.gguf"
echo "device  $GPU" | tee -a "$out/about.txt"

# The tests that need a GPU are ignored elsewhere, by name.
cargo test --release --features cuda --test device -- --ignored gpu 2>&1 | tee "$out/tests.txt"

benches/device.sh policies "$models/polyglot.gguf" "$out" | tee "$out/policies.log"
REPEAT=${REPEAT:-3} benches/device.sh speed "$models/random.gguf" "$out" | tee "$out/speed.log"
benches/device.sh guard "$models/random.gguf" "$out" | tee "$out/guard.log"
