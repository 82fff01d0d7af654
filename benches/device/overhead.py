"""Instructions of the main program for 32 tokens: runs of 40 and of 8 tokens differ by nothing else."""

import csv
import re
import subprocess

from common import OUT, WORK, env, mib_for, program

# Of polyglot-moe: layers, and experts that a token uses.
N_ROUTED = 32 * 6 * 8


def instructions(n_tokens, mib, settings):
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={WORK}/callgrind"]
    command += program("completion", "-p", "Il file di configurazione", "-n", n_tokens, "-c", "512", "-t", "1", "--temp",
                       "0.9", "--seed", "1", "--ignore-eos", "-no-cnv", "--moe-cache-mib", mib)
    settings = settings | {"HOTSET_STATS": "off", "HOTSET_DEVICE_CACHE": "on", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env(settings), check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return int(re.search(r"Collected : (\d+)", done.stderr)[1]), done.stdout


with open(f"{OUT}/overhead.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["fits", "variant", "instructions", "more_per_routed_expert"])
    for share in 100, 30:
        mib = mib_for(share) + (share == 100)
        base = None
        for variant in "upstream", "lru", "adaptive":
            settings = {"HOTSET": "off"} if variant == "upstream" else {"HOTSET_POLICY": variant}
            (short, _), (long, text) = (instructions(n, mib, settings) for n in (8, 40))
            base = base or (long - short, text)
            assert text == base[1], f"{variant} writes another text"
            more = (long - short - base[0]) / N_ROUTED
            table.writerow([f"{share} %", variant, long - short, round(more)])
            file.flush()
            print(f"{share:>3} %  {variant:<9} {long - short:>12} instructions, {more:>6.0f} more for a routed expert")
