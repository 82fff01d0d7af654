#!/usr/bin/env bash
# What `hotset doctor` expects, beside what `hotset bench` measures: three models of different shape, each with 70, 40 and
# 20 % of its experts in memory.
#
#   benches/doctor.sh OUT-DIR MODEL...    default: the polyglot widened, smolmoe if SMOLMOE names it, random mxfp4 experts
#
# Needs python3, `cargo build --release --bin hotset --example random_model`, and root, which sets limits and the read-ahead of
# the disk. Alone on the machine: the report of the doctor comes just before the benchmark of the same model. TOKENS, PROMPT_TOKENS,
# REPEAT and RAM change what is run. Writes OUT-DIR/NAME.doctor-SHARE.json, OUT-DIR/NAME.bench.json and OUT-DIR/cells.txt.
#
# Fails if a measured speed is outside of its range, or a range of hotset is wider than a factor of 4.
set -euo pipefail

if [ $# -lt 1 ]; then
    sed -n 's/^#   //p' "$0" >&2
    exit 2
fi
mkdir -p "$1"
out=$(realpath "$1")
shift
models=()
for model in "$@"; do
    models+=("$(realpath "$model")")
done
cd "$(dirname "$0")/.."
work=$(mktemp -d "$out/models.XXXXXX")
trap 'rm -rf "$work"' EXIT
target=${CARGO_TARGET_DIR:-target}
hotset=$target/release/hotset
ram=${RAM:-70%,40%,20%}

if [ ${#models[@]} -eq 0 ]; then
    "$hotset" widen models/polyglot-moe.gguf --factor 100 -o "$work/polyglot.gguf"
    "$target/release/examples/random_model" "$work/mxfp4.gguf" --type mxfp4 --layers 48 --experts 64 --used 6 --width 768 \
        --size 1.5GB
    models=("$work/polyglot.gguf" ${SMOLMOE:+"$SMOLMOE"} "$work/mxfp4.gguf")
fi

for model in "${models[@]}"; do
    name=$(basename "$model" .gguf)
    # The file is not in the page cache: its disk is what is read, past it.
    for share in ${ram//,/ }; do
        "$hotset" doctor -m "$model" --ram "$share" --json | sed "s|$(dirname "$model")/||g" >"$out/$name.doctor-${share%\%}.json"
    done
    "$hotset" bench -m "$model" --ram "$ram" --policies adaptive --prefetch auto --prompts benches/prompts/code.txt \
        --read-ahead-kb 128 -n "${TOKENS:-96}" --prompt-tokens "${PROMPT_TOKENS:-64}" --repeat "${REPEAT:-3}" --json "$out/$name.bench.json"
done

python3 - "$out" <<'P' | tee "$out/cells.txt"
import glob
import json
import os
import sys

out, n_outside = sys.argv[1], 0
line = "%-16s %-6s %-16s %9s %9s %9s %9s  %s"
print(line % ("model", "memory", "variant", "measured", "low", "typical", "high", "in range"))
for path in sorted(glob.glob(os.path.join(out, "*.bench.json"))):
    name = os.path.basename(path)[: -len(".bench.json")]
    rows = json.load(open(path))["rows"]
    for row in rows:
        if row["variant"] == "compute":
            shares, field = glob.glob(os.path.join(out, name + ".doctor-*.json")), "in_memory_tokens_per_s"
        else:
            shares = [os.path.join(out, "%s.doctor-%s.json" % (name, row["limit"].rstrip("%")))]
            field = "stock_tokens_per_s" if row["variant"] == "stock" else "hotset_tokens_per_s"
        for share in shares:
            expected = json.load(open(share))["expect"][field]
            measured = row["decode_tokens_per_s"]["median"]
            is_narrow = field != "hotset_tokens_per_s" or expected["high"] < 4 * expected["low"]
            is_inside = expected["low"] <= measured <= expected["high"]
            n_outside += not (is_inside and is_narrow)
            numbers = ["%.1f" % n for n in (measured, expected["low"], expected["typical"], expected["high"])]
            word = "yes" if is_inside and is_narrow else "NO" if is_narrow else "TOO WIDE"
            print(line % (name, row["limit"], row["variant"], *numbers, word))
print("outside: %d" % n_outside)
sys.exit(n_outside > 0)
P
exit "${PIPESTATUS[0]}"
