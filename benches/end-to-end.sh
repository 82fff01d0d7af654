#!/usr/bin/env bash
# What policies save of the reads of a real run, and whether replaying its trace gives the run's counters.
#
#   benches/end-to-end.sh MODEL OUT-DIR [repetitions]
#
# MODEL is a widened polyglot model:
#   hotset widen models/polyglot-moe.gguf --factor 180 -o big.gguf
# Needs python3 and `cargo build --release`. RAM, POLICIES and TOKENS change the budget (40%), the policies
# (lru decay adaptive) and the length of a text (256). Writes OUT-DIR/{about.txt,raw.csv}; each row is a run.
#
# Fails unless all policies write the same text, the counters of each run are those that its trace gives
# when replayed, and the bytes read are those of the misses, but for what alignment adds.
set -euo pipefail
cd "$(dirname "$0")/.."

model=$(realpath "$1")
out=$2
repetitions=${3:-2}
ram=${RAM:-40%}
read -ra policies <<<"${POLICIES:-lru decay adaptive}"
n_tokens=${TOKENS:-256}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# One program for all of it, also if somebody builds meanwhile: policies of two builds may differ.
hotset=$work/hotset
cp target/release/hotset "$hotset"

# What a text of each class begins with.
prompt() {
    case $1 in
    it) echo 'Il file di configurazione' ;;
    en) echo 'The configuration file' ;;
    de) echo 'Die Konfigurationsdatei' ;;
    fr) echo 'Le fichier de configuration' ;;
    code) echo 'def read(self, path):' ;;
    mixed)
        cat <<'TEXT'
Il comando legge il file di configurazione e scrive il risultato nella cartella indicata.
The command reads the configuration file and writes the result to the given directory.
Der Befehl liest die Konfigurationsdatei und schreibt das Ergebnis in das angegebene Verzeichnis.
La commande lit le fichier de configuration et place les lignes dans le dossier que vous indiquez.
def main(argv):
    for path in argv[1:]:
        with open(path) as file:
            print(len(file.read()))
TEXT
        ;;
    esac
}

# run CLASS SEED POLICY
run() {
    local class=$1 seed=$2 policy=$3
    rm -f "$work"/run.*
    prompt "$class" >"$work/prompt"
    HOTSET_PREFETCH=off HOTSET_RAM=$ram HOTSET_POLICY=$policy HOTSET_STATS=$work/run.json HOTSET_TRACE=$work/run.trace.gz \
        "$hotset" run --tool completion -- -m "$model" -f "$work/prompt" -n "$n_tokens" --temp 0.9 \
        --seed "$seed" --ignore-eos -no-cnv -c 512 -t 2 --no-repack \
        >"$work/run.text" 2>"$work/run.log" </dev/null || { cat "$work/run.log" >&2; return 1; }
    "$hotset" replay "$work/run.trace.gz" --budgets run --policies "$policy" --format json \
        -o "$work/run.replay.json"
    python3 - "$work" "$class" "$seed" "$policy" <<'PY' | tee -a "$out/raw.csv"
import hashlib, json, sys
work, name, seed, policy = sys.argv[1:]
stats = json.load(open(f"{work}/run.json"))[-1]
cells = json.load(open(f"{work}/run.replay.json"))["cells"]
replay = next(cell for cell in cells if cell["policy"] == policy)
generation, prompt = stats["generation"], stats["prompt"]
for key in "hits", "misses", "evictions":
    live = generation[key] + prompt[key]
    assert live == replay[key], f"{name} {seed} {policy}: {live} {key}, but {replay[key]} when replayed"
misses = generation["misses"] + prompt["misses"]
more = stats["bytes_read"] - misses * stats["expert_bytes"] // stats["n_experts"]
# A read begins and ends in the middle of a block.
assert 0 <= more <= stats["n_reads"] * 2 * 4095, f"{name} {seed} {policy}: {more} bytes more than missed"
n_tokens = generation["tokens"] + prompt["tokens"]
text = hashlib.sha256(open(f"{work}/run.text", "rb").read()).hexdigest()[:12]
print(name, seed, policy, text, n_tokens, stats["n_slots"], generation["hits"], generation["misses"],
      prompt["hits"], prompt["misses"], generation["evictions"], stats["bytes_read"], stats["n_reads"],
      round(stats["stalled_ms"]), round(stats["busy_ms"]), sep=",")
PY
}

{
    echo "commit   $(git describe --always --dirty)"
    echo "machine  $(nproc) x $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $(uname -sr)"
    echo "model    $(basename "$model"), $(stat -Lc %s "$model") bytes, HOTSET_RAM=$ram"
    echo "command  RAM=$ram POLICIES='${policies[*]}' TOKENS=$n_tokens benches/end-to-end.sh MODEL OUT-DIR $repetitions"
} | tee "$out/about.txt"
echo "class,seed,policy,text_sha256,tokens,n_slots,hits,misses,prompt_hits,prompt_misses,evictions,bytes_read,n_reads,stalled_ms,busy_ms" |
    tee "$out/raw.csv"
for seed in $(seq "$repetitions"); do
    for class in it en de fr code mixed; do
        for policy in "${policies[@]}"; do run "$class" "$seed" "$policy"; done
    done
done

# Bytes read a token, over all seeds.
python3 - "$out/raw.csv" "${policies[@]}" <<'PY'
import csv, sys
from collections import defaultdict
path, *policies = sys.argv[1:]
sums, texts = defaultdict(lambda: [0, 0]), defaultdict(set)
for row in csv.DictReader(open(path)):
    for name in "all", row["class"]:
        sums[name, row["policy"]][0] += int(row["bytes_read"])
        sums[name, row["policy"]][1] += int(row["tokens"])
    texts[row["class"], row["seed"]].add(row["text_sha256"])
different = [key for key, hashes in texts.items() if len(hashes) > 1]
assert not different, f"policies write different texts: {different}"
print("\nKiB read a token, and of the first policy's in percent")
print(f"{'class':<6}" + "".join(f"{policy:>20}" for policy in policies))
for name in dict.fromkeys(name for name, _ in sorted(sums, key=lambda key: key[0] == "all")):
    per_token = [sums[name, policy][0] / sums[name, policy][1] for policy in policies]
    print(f"{name:<6}" + "".join(f"{n / 1024:>12.1f} {100 * n / per_token[0]:>5.1f} %" for n in per_token))
PY
echo "all counters are those of the replayed traces, all texts are the same"
