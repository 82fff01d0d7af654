#!/usr/bin/env python3
"""Runs of two builds of hotset in turns: the same prompt and tokens, with several settings.

    measure.py OUT.json MODEL TEXT --ram 40% -n 96 --prompt-tokens 30 --repeat 5 NAME=PROGRAM[,VARIABLE=VALUE...] ...

Each run is a process (`hotset bench-row`). Before each the page cache is dropped, and as much memory as experts take
is used once. Prints a line for each run and medians; OUT.json has all that the processes said. Needs root.
"""

import argparse
import json
import os
import statistics
import subprocess

parser = argparse.ArgumentParser()
parser.add_argument("out")
parser.add_argument("model")
parser.add_argument("text")
parser.add_argument("--ram", default="40%")
parser.add_argument("-n", default="96")
parser.add_argument("--prompt-tokens", default="30")
parser.add_argument("--ubatch-size", default="512")
parser.add_argument("--repeat", type=int, default=5)
parser.add_argument("variants", nargs="+")
args = parser.parse_args()


def run(program, settings):
    env = {name: value for name, value in os.environ.items() if not name.startswith("HOTSET")}
    env.update(HOTSET_STATS="off", HOTSET_RAM=args.ram)
    env.update(setting.split("=", 1) for setting in settings)
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")
    memory = bytearray(2 << 30)
    memory[::4096] = b"1" * len(memory[::4096])
    del memory
    command = [
        program, "bench-row", "--model", args.model, "--prompt", args.text, "--prompt-tokens", args.prompt_tokens,
        "-n", args.n, "--seed", "1", "--threads", "2", "--ctx-size", "1024", "--ubatch-size", args.ubatch_size,
    ]
    return json.loads(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)


runs = []
for repetition in range(1, args.repeat + 1):
    for variant in args.variants:
        name, rest = variant.split("=", 1)
        program, *settings = rest.split(",")
        result = run(program, settings)
        assert not runs or result["tokens"] == runs[0]["run"]["tokens"], f"{name} wrote other tokens"
        runs.append({"name": name, "repetition": repetition, "settings": settings, "run": result})
        print(f"{name} {repetition}: token {statistics.mean(result['token_ms']):.1f} ms, "
              f"prompt {result['prefill']['ms']:.0f} ms", flush=True)

for name in dict.fromkeys(run["name"] for run in runs):
    mine = [run["run"] for run in runs if run["name"] == name]
    token = sorted(statistics.mean(run["token_ms"]) for run in mine)
    prompt = sorted(run["prefill"]["ms"] for run in mine)
    print(f"{name}: token {statistics.median(token):.1f} ms ({token[0]:.1f}-{token[-1]:.1f}), "
          f"prompt {statistics.median(prompt):.0f} ms ({prompt[0]:.0f}-{prompt[-1]:.0f})")
with open(args.out, "w") as file:
    json.dump({"arguments": vars(args), "runs": runs}, file)
