#!/usr/bin/env bash
# What hotset costs when every expert is in memory: decode speed against stock, and instructions.
#
#   benches/overhead.sh MODEL OUT-DIR [repetitions]
#
# Needs `cargo build --release` and valgrind. Writes OUT-DIR/{speed,instructions}.csv.
set -euo pipefail
cd "$(dirname "$0")/.."

model=$(realpath "$1")
out=$2
repetitions=${3:-3}
mkdir -p "$out"
text=$(mktemp)
log=$(mktemp)
trap 'rm -f "$text" "$log" "$log.callgrind"' EXIT

# run SETTING MODEL SEED N-TOKENS THREADS [prefix...]
run() {
    local setting=$1 model=$2 seed=$3 n=$4 threads=$5
    shift 5
    env "$setting" HOTSET_STATS=off "$@" target/release/llama-completion -m "$model" \
        -p 'Il file di configurazione' -n "$n" --temp 0.9 --seed "$seed" --ignore-eos -no-cnv -c 512 \
        -t "$threads" --no-repack >"$text" 2>"$log" </dev/null
}

echo "seed,variant,tokens_per_s,text_sha256" >"$out/speed.csv"
for seed in $(seq "$repetitions"); do
    for setting in HOTSET=off HOTSET_RAM=100%; do
        run "$setting" "$model" "$seed" 256 2
        speed=$(sed -n 's/.* eval time .* \([0-9.]*\) tokens per second.*/\1/p' "$log" | tail -1)
        echo "$seed,$setting,$speed,$(sha256sum <"$text" | cut -c1-12)" | tee -a "$out/speed.csv"
    done
done

# Instructions of 32 tokens: runs of 40 and of 8 tokens differ by nothing else.
echo "model,variant,n_tokens,instructions,text_sha256" >"$out/instructions.csv"
small=$(mktemp --suffix .gguf)
trap 'rm -f "$text" "$log" "$log.callgrind" "$small"' EXIT
target/release/hotset widen models/polyglot-moe.gguf --factor 16 -o "$small"
for file in models/polyglot-moe.gguf "$small"; do
    name=polyglot
    [ "$file" = "$small" ] && name=polyglot-x16
    for setting in HOTSET=off HOTSET_RAM=100%; do
        for n in 8 40; do
            run "$setting" "$file" 1 "$n" 1 OMP_NUM_THREADS=1 \
                valgrind --tool=callgrind --callgrind-out-file="$log.callgrind"
            count=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$log")
            echo "$name,$setting,$n,$count,$(sha256sum <"$text" | cut -c1-12)" |
                tee -a "$out/instructions.csv"
        done
    done
done
