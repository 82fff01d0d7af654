#!/usr/bin/env bash
# What starting warm is worth in real runs: the first tokens with the right profile, a wrong one, and none.
#
#   benches/profiles.sh MODEL OUT-DIR CLASS.txt...
#
# MODEL is a widened polyglot model (hotset widen models/polyglot-moe.gguf --factor 180 -o big.gguf); the texts are
# named after their classes. The first two thirds of each make its profile, the beginning of the rest is the
# prompt. Needs python3, `cargo build --release` and the right to drop the page cache. RAMS and TOKENS change the
# budgets (10% 20% 30% 50%) and the tokens that are generated (64). Writes OUT-DIR/{about.txt,raw.csv}; each row is
# a run. Fails unless all runs of a class write the same text.
set -euo pipefail
cd "$(dirname "$0")/.."

model=$(realpath "$1")
out=$2
shift 2
texts=()
for text in "$@"; do texts+=("$(realpath "$text")"); done
read -ra rams <<<"${RAMS:-10% 20% 30% 50%}"
n_tokens=${TOKENS:-64}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
hotset=$work/hotset
cp target/release/hotset "$hotset"

{
    echo "commit   $(git describe --always --dirty)"
    echo "machine  $(nproc) x $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $(uname -sr)"
    echo "command  RAMS='${rams[*]}' TOKENS=$n_tokens benches/profiles.sh MODEL OUT-DIR ${texts[*]##*/}"
    echo "model    $(stat -c %s "$model") bytes"
} | tee "$out/about.txt"

classes=()
for text in "${texts[@]}"; do
    class=$(basename "$text" .txt)
    classes+=("$class")
    python3 - "$text" "$work/$class" <<'PY'
import sys
text = open(sys.argv[1], encoding="utf-8").read()
cut = text.rindex("\n", 0, len(text) * 2 // 3) + 1
open(sys.argv[2] + ".txt", "w", encoding="utf-8").write(text[:cut])
open(sys.argv[2] + ".prompt", "w", encoding="utf-8").write(" ".join(text[cut:].split()[:12]))
PY
    "$hotset" profile record -m "$model" -f "$work/$class.txt" --name "$class" -o "$work/$class.json" 2>/dev/null
done

# run CLASS RAM VARIANT [PROFILE]
run() {
    local class=$1 ram=$2 variant=$3 profile=${4:-}
    rm -f "$work"/run.*
    sync
    echo 3 >/proc/sys/vm/drop_caches
    HOTSET_PREFETCH=off HOTSET_RAM=$ram HOTSET_PROFILE=$profile HOTSET_STATS=$work/run.json \
        "$hotset" run --tool completion -- -m "$model" -f "$work/$class.prompt" -n "$n_tokens" --temp 0.9 \
        --seed 1 --ignore-eos -no-cnv -c 512 -t 2 --no-repack \
        >"$work/run.text" 2>"$work/run.log" </dev/null || { cat "$work/run.log" >&2; return 1; }
    python3 - "$work" "$class" "$ram" "$variant" <<'PY' | tee -a "$out/raw.csv"
import hashlib, json, re, sys
work, name, ram, variant = sys.argv[1:]
stats = json.load(open(f"{work}/run.json"))[-1]
log = open(f"{work}/run.log").read()
warm = re.search(r"hottest (\d+) experts .* read in ([\d.]+) s", log)
n, seconds = warm.groups() if warm else (0, 0)
text = hashlib.sha256(open(f"{work}/run.text", "rb").read()).hexdigest()[:8]
g = stats["generation"]
print(name, ram, variant, g["tokens"], g["hits"], g["misses"], stats["bytes_read"], n, seconds,
      round(stats["busy_ms"]), round(stats["stalled_ms"]), text, sep=",")
PY
}

echo "class,ram,variant,tokens,hits,misses,bytes_read,warmed,warm_s,busy_ms,stalled_ms,text" | tee "$out/raw.csv"
for i in "${!classes[@]}"; do
    class=${classes[$i]}
    wrong=${classes[$(((i + 2) % ${#classes[@]}))]}
    for ram in "${rams[@]}"; do
        run "$class" "$ram" none
        run "$class" "$ram" right "$work/$class.json"
        run "$class" "$ram" "wrong:$wrong" "$work/$wrong.json"
    done
done
python3 - "$out/raw.csv" <<'PY'
import collections, csv, sys
rows = list(csv.DictReader(open(sys.argv[1])))
texts = collections.defaultdict(set)
for row in rows:
    texts[row["class"]].add(row["text"])
assert all(len(text) == 1 for text in texts.values()), "runs of one class wrote different texts"
sums = collections.defaultdict(collections.Counter)
for row in rows:
    for key in "bytes_read", "busy_ms", "stalled_ms", "warm_s":
        sums[row["ram"], row["variant"].split(":")[0]][key] += float(row[key])
print(f"\n{'fits':<6}{'profile':<8}{'bytes':>9}{'time':>9}{'stalled':>9}{'warming':>10}")
for (ram, variant), s in sums.items():
    none = sums[ram, "none"]
    change = lambda key: f"{100 * (s[key] / none[key] - 1):+.1f} %"
    n = len(texts)
    print(f"{ram:<6}{variant:<8}{change('bytes_read'):>9}{change('busy_ms'):>9}{change('stalled_ms'):>9}"
          f"{s['warm_s'] / n:>8.2f} s")
PY
