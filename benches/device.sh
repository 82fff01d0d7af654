#!/usr/bin/env bash
# The device tier without a GPU: a ggml-rpc-server on loopback is the device. Hit rates, bytes and instructions are
# those of any device; times are not. benches/gpu.sh runs the same on a GPU.
#
#   benches/device.sh policies MODEL OUT-DIR    what policies hit and upload, beside upstream's own cache
#   benches/device.sh upstream MODEL OUT-DIR    what upstream's own cache hits, and a policy that is to be the same
#   benches/device.sh overhead MODEL OUT-DIR    instructions of the hooked plan and of upstream's own
#   benches/device.sh guard MODEL OUT-DIR       speed where the cache does not pay, beside the same without it
#   benches/device.sh speed MODEL OUT-DIR       speed at several sizes: without a cache, upstream's own, and policies
#
# Needs python3 and `cargo build --release`; overhead needs valgrind. TOKENS, SHARES (percent of the experts on the
# device), POLICIES and REPEAT change what is run. policies and upstream want experts of at least 100 KiB, because llama.cpp
# takes the size in MiB: hotset widen models/polyglot-moe.gguf --factor 16 -o MODEL. Writes OUT-DIR/*.csv, a row for each run.
# For upstream, COMPLETION is a llama-completion with another tag of llama.cpp and RPC_SERVER its server, by their whole
# paths, and LIKE the policy: lru (b11549), slru (b12032).
#
# policies fails unless all variants write the same texts, the hits of each run are those of its replayed trace, and
# adaptive hits at most 0.3 points less than any policy that llama.cpp has had. upstream fails if LIKE is more than 0.3
# points off. guard fails below 0.95 of the speed without the cache.
set -euo pipefail

if [ $# -ne 3 ]; then
    sed -n 's/^#   //p' "$0" >&2
    exit 2
fi
what=$1
model=$(realpath "$2")
out=$(realpath -m "$3")
cd "$(dirname "$0")/.."
mkdir -p "$out"
work=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; fi; rm -rf "$work"' EXIT

# One program for all of it, also if somebody builds meanwhile.
target=${CARGO_TARGET_DIR:-target}
cp "$target/release/hotset" "$work/hotset"
endpoint=
if [ -z "${GPU:-}" ]; then
    # The newest: builds with other features lie beside it.
    rpc_server=${RPC_SERVER:-$(ls -t "$target"/llama/*/build/bin/ggml-rpc-server | head -1)}
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    endpoint=127.0.0.1:$port
    OMP_WAIT_POLICY=passive "$rpc_server" -H 127.0.0.1 -p "$port" -t 2 >"$work/server.log" 2>&1 &
    server=$!
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "$server" || { server=; cat "$work/server.log" >&2; exit 1; }
        sleep 0.1
    done
    export OMP_WAIT_POLICY=passive
fi

{
    echo "commit   $(git describe --always --dirty)"
    echo "machine  $(nproc) x $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $(uname -sr)"
    echo "model    $(basename "$model"), $(stat -Lc %s "$model") bytes"
    echo "device   ${GPU:-ggml-rpc-server on loopback}"
    echo "command  benches/device.sh $what MODEL OUT-DIR"
    for name in TOKENS SHARES POLICIES REPEAT COMPLETION LIKE; do [ -z "${!name:-}" ] || echo "         $name=${!name}"; done
} | tee "$out/$what.txt"

export PYTHONDONTWRITEBYTECODE=1
export MODEL=$model OUT=$out WORK=$work ENDPOINT=$endpoint
python3 "benches/device/$what.py"
