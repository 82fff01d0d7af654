#!/usr/bin/env python3
"""Stock llama.cpp and hotset with experts repacked or not, in turns: llama-bench, 256 tokens of prompt and 48 generated.

    measure.py OUT.json LLAMA_BENCH REPEAT MODEL.gguf ... [-- SHARE ...]

For each model stock, stock with --no-repack and hotset with everything in memory; with shares (70%) hotset only, with
HOTSET_REPACK=off, auto and on. Each run is a process; pages are dropped before each of those with a share. Needs root.
"""

import json
import os
import statistics
import subprocess
import sys

out, bench, repeat, *models = sys.argv[1:]
models, shares = (models[: models.index("--")], models[models.index("--") + 1 :]) if "--" in models else (models, [])
ALL = [
    ("stock", {"HOTSET": "off"}, "1"),
    ("stock, --no-repack", {"HOTSET": "off"}, "0"),
    ("hotset 100%, off", {"HOTSET_RAM": "100%", "HOTSET_REPACK": "off"}, "1"),
    ("hotset 100%, auto", {"HOTSET_RAM": "100%"}, "1"),
]
PART = [
    (f"hotset {share}, {repack}", {"HOTSET_RAM": share, "HOTSET_REPACK": repack}, "1")
    for share in shares
    for repack in ("off", "auto", "on")
]


def run(model, settings, repack):
    env = {name: value for name, value in os.environ.items() if not name.startswith("HOTSET")}
    env.update(settings, HOTSET_STATS="off")
    if settings.get("HOTSET_RAM", "100%") != "100%":
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
    command = [bench, "-m", model, "-p", "256", "-n", "48", "-t", "2", "-r", "1", "--no-warmup", "--repack", repack, "-o", "json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    said = [line for line in done.stderr.splitlines() if "repacked" in line]
    return [row["avg_ts"] for row in json.loads(done.stdout)], said


runs = []
for repetition in range(int(repeat)):
    for model in models:
        for name, settings, repack in PART or ALL:
            (prompt, token), said = run(model, settings, repack)
            runs.append({"model": os.path.basename(model), "variant": name, "prompt": prompt, "token": token, "said": said})
with open(out, "w") as file:
    json.dump(runs, file, indent=1)
for model in models:
    for name, *_ in PART or ALL:
        mine = [run for run in runs if run["model"] == os.path.basename(model) and run["variant"] == name]
        print(os.path.basename(model), name, *(
            f"{key} {statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"
            for key in ("prompt", "token")
            for values in [[run[key] for run in mine]]
        ), sep=" | ")
