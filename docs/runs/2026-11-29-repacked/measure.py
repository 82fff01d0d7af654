#!/usr/bin/env python3
"""Stock llama.cpp and hotset with experts repacked, packed or neither, in turns.

    measure.py OUT.json PROGRAMS REPEAT MODEL.gguf ... [-- SHARE ...]

PROGRAMS is the folder of hotset and llama-bench. For each model stock, stock with --no-repack and hotset with everything in
memory; with shares (70%) hotset only. `packed` has MODEL.packed, which is made first. With PROMPT=FILE llama-completion
continues the text of that file, instead of llama-bench's random tokens; with ONLY=stock,auto there are only these. Each run is a process, of 512 tokens of prompt (or
what the text has) and 64 generated; pages are dropped before each of those with a share. Needs root.
"""

import json
import os
import random
import re
import statistics
import subprocess
import sys

out, programs, repeat, *models = sys.argv[1:]
models, shares = (models[: models.index("--")], models[models.index("--") + 1 :]) if "--" in models else (models, [])
text = os.environ.pop("PROMPT", None)
only = os.environ.pop("ONLY", None)
HOTSET = {
    "off": {"HOTSET_REPACK": "off", "HOTSET_PACK": "off"},
    "auto": {"HOTSET_PACK": "off"},
    "on": {"HOTSET_REPACK": "on", "HOTSET_PACK": "off"},
    "packed": {},
}
STOCK = [("stock", {"HOTSET": "off"}, True), ("stock, --no-repack", {"HOTSET": "off"}, False)]
VARIANTS = [
    (f"hotset {share}, {name}", dict(settings, HOTSET_RAM=share), True)
    for share in shares or ["100%"]
    for name, settings in HOTSET.items()
]
VARIANTS = VARIANTS if shares else STOCK + VARIANTS
VARIANTS = [variant for variant in VARIANTS if not only or variant[0].split(", ")[-1] in only.split(",")]


def run(model, settings, repacks):
    env = {name: value for name, value in os.environ.items() if not name.startswith("HOTSET")}
    env.update(settings, HOTSET_STATS="off")
    if shares:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
    if text:
        command = [f"{programs}/llama-completion", "-m", model, "-f", text, "-n", "64", "-t", "2", "-c", "2048", "--no-warmup", "-no-cnv"]
        command += ["--seed", "1", "--temp", "0.9", "--ignore-eos", "--perf"] + ([] if repacks else ["--no-repack"])
    else:
        command = [f"{programs}/llama-bench", "-m", model, "-p", "512", "-n", "64", "-t", "2", "-r", "1", "--no-warmup", "-o", "json"]
        command += ["--repack", "1" if repacks else "0"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    said = [line.replace(f"{os.path.dirname(model)}/", "") for line in done.stderr.splitlines() if "packed" in line]
    if not text:
        return [row["avg_ts"] for row in json.loads(done.stdout)], said
    speeds = re.findall(r"(prompt eval|eval) time .*?([\d.]+) tokens per second", done.stderr)
    return [float(dict(speeds)[name]) for name in ("prompt eval", "eval")], said


for model in models:
    subprocess.run([f"{programs}/hotset", "pack", model], check=True)
runs = []
for repetition in range(int(repeat)):
    order = [(model, *variant) for model in models for variant in VARIANTS]
    # A processor whose owner rations it is faster after a run that has waited for the disk.
    random.Random(repetition).shuffle(order)
    for model, name, settings, repacks in order:
        (prompt, token), said = run(model, settings, repacks)
        runs.append({"model": os.path.basename(model), "variant": name, "prompt": prompt, "token": token, "said": said})
    with open(out, "w") as file:
        json.dump(runs, file, indent=1)
for model in models:
    for name, *_ in VARIANTS:
        mine = [run for run in runs if run["model"] == os.path.basename(model) and run["variant"] == name]
        print(os.path.basename(model), name, *(
            f"{key} {statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"
            for key in ("prompt", "token")
            for values in [[run[key] for run in mine]]
        ), sep=" | ")
