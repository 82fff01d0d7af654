"""Speed with the cache, which its guard leaves aside where it does not pay, and without --moe-cache-mib."""

import csv
import hashlib
import os
import re
import statistics
import subprocess
import time

from common import ENDPOINT, OUT, THREADS, WORK, env, mib_for, number, program

N_TOKENS = number("TOKENS", 400)
REPEAT = number("REPEAT", 5)
LEAST = 0.95


def run(args):
    """Tokens a second of the whole run, seconds of the last quarter of its text, the text, and when it was left aside."""
    command = program("completion", "-p", "Il file di configurazione", "-n", N_TOKENS, "-c", "1024", *THREADS, "--temp",
                      "0.9", "--seed", "1", "--ignore-eos", "-no-cnv", "--no-display-prompt", *args)
    log = open(f"{WORK}/guard.log", "w+")
    child = subprocess.Popen(command, env=env({}), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
    pieces = []
    while piece := os.read(child.stdout.fileno(), 1 << 16):
        pieces.append((time.monotonic(), piece))
    status = child.wait()
    log.seek(0)
    log = log.read()
    assert status == 0, log
    text = b"".join(piece for _, piece in pieces)
    seen, begin = 0, None
    for now, piece in pieces:
        seen += len(piece)
        if begin is None and seen >= len(text) * 3 // 4:
            begin = now
    end = max(now for now, piece in pieces if piece.strip())
    speed = float(re.findall(r"eval time .* ([\d.]+) tokens per second", log)[-1])
    asides = re.findall(r"hotset: (.*) with the experts .*", log)
    return speed, end - begin, hashlib.sha256(text).hexdigest()[:12], len(asides)


mib = mib_for(number("SHARE", 50))
variants = {"without": [], "guarded": ["--moe-cache-mib", mib]}
speeds, ends, texts = ({name: [] for name in variants} for _ in range(3))
with open(f"{OUT}/guard.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["run", "variant", "mib", "tokens_per_s", "last_quarter_s", "decisions", "text"])
    for number_of_run in range(REPEAT):
        for name, args in variants.items():
            speed, end, text, n_decisions = run(args)
            speeds[name].append(speed)
            ends[name].append(end)
            texts[name].append(text)
            table.writerow([number_of_run, name, mib if args else 0, speed, f"{end:.3f}", n_decisions, text])
            file.flush()
whole = statistics.median(speeds["guarded"]) / statistics.median(speeds["without"])
at_end = statistics.median(ends["without"]) / statistics.median(ends["guarded"])
print(f"of the speed without a cache: {whole:.3f} over {N_TOKENS} tokens, {at_end:.3f} in the last quarter")
# A GPU does not round as the host does.
assert not ENDPOINT or len({text for all_of in texts.values() for text in all_of}) == 1, "different texts"
assert at_end >= LEAST, f"{at_end:.3f}, least {LEAST}"
