"""What the parts of benches/device.sh share: a program on the device, and what it says of the cache."""

import json
import os
import re
import subprocess

MODEL, OUT, WORK, ENDPOINT = (os.environ[name] for name in ("MODEL", "OUT", "WORK", "ENDPOINT"))
HOTSET = f"{WORK}/hotset"
# Of another llama.cpp, which need not have the other programs.
COMPLETION = os.environ.get("COMPLETION")
CLASSES = ["it", "en", "de", "fr", "code"]
# Bytes of a prompt.
N_PROMPT = 300
# Without an endpoint it is the machine's own GPU.
RPC = ["--rpc", ENDPOINT] if ENDPOINT else []
# A server on loopback has the same two cores.
THREADS = ["-t", "2"] if ENDPOINT else []
ON_DEVICE = [*RPC, "-ngl", "99", "--cpu-moe", "--no-repack", "--no-warmup"]


def number(name, default):
    return int(os.environ.get(name, default))


def env(settings):
    """The environment with these settings of hotset and no others."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith("HOTSET")}
    return rest | settings


def program(tool, *args):
    start = [COMPLETION] if COMPLETION and tool == "completion" else [HOTSET, "run", "--tool", tool, "--"]
    return [*start, "-m", MODEL, *ON_DEVICE, *map(str, args)]


def prompt(name, i):
    """The piece number i of the text of a class in benches/prompts."""
    text = open(f"benches/prompts/{name}.txt", encoding="utf-8").read()
    begin = text.index(" ", i * 2 * N_PROMPT) + 1
    return text[begin:begin + N_PROMPT]


def replay(trace, policies):
    """The cells of a recorded run's pools, by policy."""
    cells = f"{WORK}/replay.json"
    subprocess.run([HOTSET, "replay", trace, "--budgets", "run", "--policies", ",".join(policies), "--format", "json", "-o", cells],
                   check=True)
    return {cell["policy"]: cell for cell in json.load(open(cells))["cells"]}


def mib_for(percent):
    """The --moe-cache-mib for a share of the experts, and their number."""
    stats = f"{WORK}/probe.json"
    command = program("completion", "-p", "a", "-n", "2", "-c", "256", "-no-cnv", "--moe-cache-mib", "1024")
    settings = {"HOTSET_STATS": stats, "HOTSET_DEVICE_CACHE": "on"}
    done = subprocess.run(command, env=env(settings), check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert os.path.exists(stats), done.stderr.decode()
    device = json.load(open(stats))[-1]["devices"][0]
    n_bytes = device["slot_bytes"] / device["n_slots"] * (device["n_experts"] * percent / 100 + 1)
    return round(n_bytes / 2**20)


def upstream_counters(log):
    """Hits, misses and MiB uploaded that upstream's own cache reports at the end."""
    line = r"llama_moe_cache: ubatch .*: hits = (\d+), misses = (\d+), .* uploaded = ([\d.]+) MiB"
    found = re.findall(line, log)
    assert found, log
    return sum(int(f[0]) for f in found), sum(int(f[1]) for f in found), sum(float(f[2]) for f in found)
