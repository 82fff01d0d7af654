#!/usr/bin/env bash
# Decode speed with experts on disk: stock mmap against hotset, in a memory control group.
#
#   benches/disk-tier.sh MODEL OUT-DIR [repetitions]
#
# MODEL is a widened polyglot model:
#   hotset widen models/polyglot-moe.gguf --factor 180 -o big.gguf
# Needs root, control groups version 1, python3, and `cargo build --release`. Writes OUT-DIR/raw.csv.
# Each row is one run, interleaved, with the page cache dropped before it and read-ahead at 128 KiB.
set -euo pipefail
cd "$(dirname "$0")/.."

model=$(realpath "$1")
out=$2
repetitions=${3:-3}
n_tokens=${TOKENS:-128}
program=target/release/llama-completion
group=/sys/fs/cgroup/memory/hotset-bench
size=$(stat -c %s "$model")
mkdir -p "$out" "$group"

queues=(/sys/block/*/queue/read_ahead_kb)
before=$(cat "${queues[@]}")
restore() {
    paste <(printf '%s\n' "${queues[@]}") <(echo "$before") | while read -r queue kb; do
        echo "$kb" >"$queue" || true
    done
    rmdir "$group" 2>/dev/null || true
}
trap restore EXIT
for queue in "${queues[@]}"; do echo 128 >"$queue" 2>/dev/null || true; done

# Random direct reads of one part of an expert, four at a time: MB/s.
disk() {
    python3 - "$model" <<'PY'
import concurrent.futures, mmap, os, random, sys, time
path, n_bytes, n_reads = sys.argv[1], 2304 * 1024, 128
fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
blocks = (os.fstat(fd).st_size - n_bytes) // 4096
def read(offset):
    with mmap.mmap(-1, n_bytes) as buffer:
        return os.preadv(fd, [buffer], offset)
offsets = [random.randrange(blocks) * 4096 for _ in range(n_reads)]
begin = time.time()
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    total = sum(pool.map(read, offsets))
print(round(total / (time.time() - begin) / 1e6))
PY
}

# One run: cap in percent of the model (0: none), then the settings.
run() {
    local cap=$1 seed=$2 name=$3
    shift 3
    local limit=-1
    [ "$cap" = 0 ] || limit=$((size * cap / 100))
    echo "$limit" >"$group/memory.limit_in_bytes"
    sync
    echo 3 >/proc/sys/vm/drop_caches
    local stats=$out/stats.json
    rm -f "$stats"
    env "$@" HOTSET_STATS="$stats" sh -c "echo \$\$ >$group/cgroup.procs; exec $program \
        -m '$model' -p 'Il file di configurazione' -n $n_tokens --temp 0.9 --seed $seed --ignore-eos \
        -no-cnv -c 512 -t 2 --no-repack" >"$out/text" 2>"$out/log" </dev/null
    python3 - "$out" "$cap" "$seed" "$name" "$(disk)" <<'PY'
import hashlib, json, os, re, sys
out, cap, seed, name, disk = sys.argv[1:]
log = open(f"{out}/log").read()
speed = re.findall(r" eval time .*?([\d.]+) tokens per second", log)[-1]
text = hashlib.sha256(open(f"{out}/text", "rb").read()).hexdigest()[:12]
row = [cap, seed, name, speed, text, disk]
if os.path.exists(f"{out}/stats.json"):
    s = json.load(open(f"{out}/stats.json"))[-1]
    g = s["generation"]
    row += [s["policy"], s["n_slots"], g["hits"], g["misses"], s["bytes_read"], round(s["stalled_ms"]), round(s["busy_ms"])]
line = ",".join(map(str, row))
print(line)
open(f"{out}/raw.csv", "a").write(line + "\n")
PY
}

echo "cap_percent,seed,variant,tokens_per_s,text_sha256,disk_mb_per_s,policy,n_slots,hits,misses,bytes_read,stalled_ms,busy_ms" >"$out/raw.csv"
for seed in $(seq "$repetitions"); do
    for cap in ${CAPS:-40 20}; do
        # The arena is the cap less what the program takes besides.
        ram=$((size * cap / 100 / 1048576 - ${REST_MIB:-100}))MiB
        run "$cap" "$seed" stock HOTSET=off
        run "$cap" "$seed" hotset HOTSET_RAM="$ram"
    done
    if [ -n "${RESIDENT:-}" ]; then
        run 0 "$seed" stock HOTSET=off
        run 0 "$seed" hotset HOTSET_RAM=100%
    fi
done
rm -f "$out/text" "$out/log" "$out/stats.json"
