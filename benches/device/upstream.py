"""What llama.cpp's own cache counts, and what a policy of ours makes of the same routing."""

import csv
import hashlib
import os
import subprocess

from common import CLASSES, OUT, THREADS, WORK, env, mib_for, number, program, prompt, replay, upstream_counters

N_TOKENS = number("TOKENS", 200)
SHARES = [int(share) for share in os.environ.get("SHARES", "10 20 30 50").split()]
LIKE = os.environ.get("LIKE", "lru")
# Points of hit rate.
OFF_MAX = 0.3


def run(name, mib, settings):
    """The text, and what the program said."""
    # The counters are said from level 4 on.
    command = program("completion", "-p", prompt(name, 0), "-n", N_TOKENS, "-c", "1024", *THREADS, "--temp", "0.9", "--seed", "1",
                      "--ignore-eos", "-no-cnv", "-lv", "4", "--moe-cache-mib", mib)
    done = subprocess.run(command, env=env(settings), check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return hashlib.sha256(done.stdout).hexdigest()[:12], done.stderr.decode()


def main():
    trace = f"{WORK}/run.trace.gz"
    sizes = {share: mib_for(share) for share in SHARES}
    off_most = 0
    with open(f"{OUT}/upstream.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "share", "mib", "written", "policy", "upstream_hits", "upstream_misses", "hits", "misses"])
        for name in CLASSES:
            for share, mib in sizes.items():
                text, log = run(name, mib, {"HOTSET": "off"})
                hits, misses, _ = upstream_counters(log)
                recorded, _ = run(name, mib, {"HOTSET_DEVICE_CACHE": "on", "HOTSET_STATS": "off", "HOTSET_TRACE": trace})
                cell = replay(trace, [LIKE])[LIKE]
                table.writerow([name, share, mib, text, LIKE, hits, misses, cell["hits"], cell["misses"]])
                file.flush()
                assert recorded == text, f"{name} {share}: another text was recorded"
                n = hits + misses
                assert n == cell["hits"] + cell["misses"], f"{name} {share}: other routing was recorded"
                rates = 100 * hits / n, 100 * cell["hits"] / n
                print(f"{name:<5}{share:>3} %: llama.cpp {rates[0]:>6.2f} %, {LIKE} {rates[1]:>6.2f} %")
                off_most = max(off_most, abs(rates[0] - rates[1]))
    print(f"{LIKE} is {off_most:.2f} points off llama.cpp's own cache at most")
    assert off_most <= OFF_MAX, f"more than {OFF_MAX}"


main()
