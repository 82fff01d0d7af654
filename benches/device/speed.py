"""Decode speed at several sizes of the cache, interleaved: without one, with upstream's own, and with policies."""

import csv
import json
import os
import re
import statistics
import subprocess

from common import OUT, WORK, env, mib_for, number, program, upstream_counters

N_TOKENS = number("TOKENS", 200)
REPEAT = number("REPEAT", 3)
SHARES = [int(share) for share in os.environ.get("SHARES", "10 25 50 75").split()]
POLICIES = os.environ.get("POLICIES", "lru adaptive").split()


def run(mib, variant):
    """Tokens a second, hits, misses, and MiB uploaded."""
    # Without a cache as users run it, with what repacking brings. Upstream says its counters from level 4 on.
    cache = ["--moe-cache-mib", mib] if mib else ["--repack"]
    command = program("completion", "-p", "Il file di configurazione", "-n", N_TOKENS, "-c", "1024", "--temp", "0.9", "--seed",
                      "1", "--ignore-eos", "-no-cnv", "-lv", "4", *cache)
    stats = f"{WORK}/speed.json"
    settings = {"HOTSET": "off"} if variant in ("none", "upstream") else {"HOTSET_POLICY": variant, "HOTSET_STATS": stats}
    done = subprocess.run(command, env=env(settings), check=True, capture_output=True, stdin=subprocess.DEVNULL)
    log = done.stderr.decode()
    speed = float(re.findall(r"eval time .* ([\d.]+) tokens per second", log)[-1])
    if variant == "none":
        return speed, 0, 0, 0
    if variant == "upstream":
        return speed, *upstream_counters(log)
    device = json.load(open(stats))[-1]["devices"][0]
    counters = device["generation"]
    return speed, counters["hits"], counters["misses"], device["bytes_uploaded"] / 2**20


speeds = {}
with open(f"{OUT}/speed.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["run", "share", "mib", "variant", "tokens_per_s", "hits", "misses", "mib_uploaded"])
    sizes = {share: mib_for(share) for share in SHARES}
    for number_of_run in range(REPEAT):
        for share, mib in {0: 0, **sizes}.items():
            for variant in ["upstream", *POLICIES] if mib else ["none"]:
                result = run(mib, variant)
                speeds.setdefault((share, variant), []).append(result[0])
                table.writerow([number_of_run, share, mib, variant, *result])
                file.flush()
for (share, variant), of_runs in speeds.items():
    print(f"{share:>3} %  {variant:<10}{statistics.median(of_runs):>8.2f} tokens/s")
