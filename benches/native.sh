#!/usr/bin/env bash
# Our programs beside llama.cpp's own build on this machine: unpatched, with the options it has by default.
#
#   benches/native.sh OUT-DIR ROUNDS MODEL...
#
# Needs `cargo build --release` and a cmake in PATH. Builds upstream's llama-bench below target/upstream from vendor/llama.cpp,
# then measures all builds in turns, a prompt of 512 tokens and 64 generated. `ours` has hotset off, `streamed` has all experts
# in its cache. Writes OUT-DIR/{raw.jsonl,options.diff,ratios.txt}; THREADS, if set, is the number of threads.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$1
rounds=$2
shift 2
mkdir -p "$out"
threads=${THREADS:-$(nproc)}

# The tree lacks the folders that these options are about, and no page is needed.
upstream=target/upstream
if [ ! -x $upstream/bin/llama-bench ]; then
    cmake -S vendor/llama.cpp -B $upstream -DCMAKE_BUILD_TYPE=Release \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
        -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF >&2
    cmake --build $upstream --target llama-bench -j "$(nproc)" >&2
fi

# What llama.cpp was asked to do differently, for whoever wonders about a ratio.
options() { grep -E '^(GGML|LLAMA|CMAKE_(C|CXX)_FLAGS|CMAKE_BUILD_TYPE|BUILD_SHARED)[A-Z0-9_]*:' "$1/CMakeCache.txt" | sort; }
built=$(ls -td "${CARGO_TARGET_DIR:-target}"/llama/*-*/build | head -1)
diff <(options $upstream) <(options "$built") >"$out/options.diff" || true

ours=${CARGO_TARGET_DIR:-target}/release/llama-bench
measure() {
    local variant=$1 round=$2 model=$3 setting=$4 program=$5
    env "$setting" HOTSET_STATS=off "$program" -m "$model" -p 512 -n 64 -r 1 -t "$threads" -o jsonl 2>/dev/null |
        sed -e "s|^{|{\"variant\": \"$variant\", \"round\": $round, |" -e "s|$(dirname "$model")/||g" | tee -a "$out/raw.jsonl" >&2
}

: >"$out/raw.jsonl"
for round in $(seq "$rounds"); do
    for model in "$@"; do
        # Each is first in a third of the rounds.
        variants=(upstream ours streamed)
        for i in 0 1 2; do
            case ${variants[$(((round + i) % 3))]} in
            upstream) measure upstream "$round" "$model" HOTSET=off $upstream/bin/llama-bench ;;
            ours) measure ours "$round" "$model" HOTSET=off "$ours" ;;
            streamed) measure streamed "$round" "$model" HOTSET_RAM=100% "$ours" ;;
            esac
        done
    done
done

python3 - "$out/raw.jsonl" <<'PYTHON' | tee "$out/ratios.txt"
import collections, json, os, statistics, sys

speeds = collections.defaultdict(dict)
for line in open(sys.argv[1]):
    run = json.loads(line)
    test = "prefill" if run["n_prompt"] else "decode"
    key = os.path.basename(run["model_filename"]), test, run["variant"]
    speeds[key][run["round"]] = run["avg_ts"]
for (model, test, variant), by_round in speeds.items():
    theirs = speeds[model, test, "upstream"]
    text = f"{model}, {test}, {variant}: {statistics.median(by_round.values()):.1f} tokens/s"
    text += f" ({min(by_round.values()):.1f}-{max(by_round.values()):.1f})"
    if variant != "upstream":
        # Of the same round, because a shared machine has slow minutes.
        ratios = sorted(by_round[r] / theirs[r] for r in by_round)
        text += f", {statistics.median(ratios):.3f}x upstream's ({ratios[0]:.3f}-{ratios[-1]:.3f})"
    print(text)
PYTHON
