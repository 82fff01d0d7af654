#!/usr/bin/env bash
# Hit rates of all policies on recorded routing, beside the best possible ones.
#
#   benches/policies.sh OUT-DIR TRACE.trace.gz...
#
# Needs `cargo build --release` and python3. Replays the first 2000 tokens of each trace with every policy at
# seven budgets, one after the other so that times can be compared; then what a change of topic costs.
# Writes OUT-DIR/{about.txt,replay.json.gz,switches.txt} and prints what they add up to.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: benches/policies.sh OUT-DIR TRACE.trace.gz..." >&2
    exit 2
fi
out=$(realpath -m "$1")
shift
traces=()
for trace in "$@"; do traces+=("$(realpath "$trace")"); done
cd "$(dirname "$0")/.."
mkdir -p "$out"

export RAYON_NUM_THREADS=1
options=(--limit 2000 --budgets '3%,6%,12.5%,25%,37.5%,50%,70%' --policies all)

{
    echo "commit   $(git describe --always --dirty)"
    echo "machine  $(nproc) x $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $(uname -sr)"
    echo "command  RAYON_NUM_THREADS=1 hotset replay TRACES ${options[*]} --format json"
    for trace in "${traces[@]}"; do
        echo "trace    $(basename "$trace") sha256 $(sha256sum <"$trace" | cut -c1-12)"
    done
} | tee "$out/about.txt"

target/release/hotset replay "${traces[@]}" "${options[@]}" --format json -o "$out/replay.json"
python3 - "$out/replay.json" <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
print(f"\n{'policy':<10} {'gap closed':>10} {'cells':>6} {'below lru':>10} {'below best':>11} {'ns/expert':>10}")
for s in report["summary"]:
    gap = "-" if s["gap_closed"] is None else f"{100 * s['gap_closed']:.1f} %"
    print(f"{s['policy']:<10} {gap:>10} {s['cells']:>6} {s['cells_below_lru']:>10}"
          f" {s['cells_below_best']:>11} {s['ns_per_expert']:>10.0f}")
PY
gzip -9nf "$out/replay.json"

echo
cargo run --quiet --release --example switches -- tests/data/mixed.trace.gz 400 | tee "$out/switches.txt"
