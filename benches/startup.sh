#!/usr/bin/env bash
# How long it takes until a program has written its first token.
#
#   benches/startup.sh OUT-DIR ROUNDS MODEL...
#
# Needs `cargo build --release`, python3, and root, which drops the page cache. In turns: stock (`--off`), as usual (a model that
# fits is loaded as upstream loads it), and all experts streamed with 30 % of them in memory; each with the file in the page
# cache and without. Writes OUT-DIR/{raw.csv,medians.txt}.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$1
rounds=$2
shift 2
mkdir -p "$out"
hotset=${CARGO_TARGET_DIR:-target}/release/hotset

TIMEFORMAT=%3R
first_token() {
    "$hotset" run --tool completion "$@" -p "Ciao" -n 1 -no-cnv --no-warmup >/dev/null 2>&1
}

measure() {
    local model=$1 cache=$2 variant=$3 seconds
    shift 3
    if [ "$cache" = cold ]; then
        sync
        echo 3 >/proc/sys/vm/drop_caches
    else
        cat "$model" >/dev/null
    fi
    seconds=$({ time first_token "$@" -m "$model"; } 2>&1)
    echo "$(basename "$model"),$cache,$variant,$seconds"
}

echo "model,cache,variant,seconds" >"$out/raw.csv"
for _ in $(seq "$rounds"); do
    for model in "$@"; do
        for cache in warm cold; do
            measure "$model" "$cache" stock --off
            measure "$model" "$cache" usual
            measure "$model" "$cache" streamed --ram 30%
        done
    done
done | tee -a "$out/raw.csv" >&2

python3 - "$out/raw.csv" <<'PYTHON' | tee "$out/medians.txt"
import collections, csv, statistics, sys

times = collections.defaultdict(list)
for row in csv.DictReader(open(sys.argv[1])):
    times[row["model"], row["cache"], row["variant"]].append(float(row["seconds"]))
for (model, cache, variant), seconds in times.items():
    low, high = min(seconds), max(seconds)
    print(f"{model}, {cache}, {variant}: {statistics.median(seconds):.2f} s ({low:.2f}-{high:.2f})")
PYTHON
