"""What being watched costs a llama-server: tokens per second and processor time per token, in turns of random order,
and instructions of each request by callgrind.

    python3 measure.py LLAMA_SERVER MODEL OUT [--rounds 12] [--tokens 160] [--ram 40%]

Watched means as by the open page and a Prometheus: /hotset/events is held, /metrics is asked for each second,
/hotset/heat every 2 s, /hotset/stats every 5 s, /hotset/plan every minute.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
import urllib.request

PORT = 8097
BASE = f"http://127.0.0.1:{PORT}"
PROMPT = "The history of the city of Rome begins with"


def get(path):
    with urllib.request.urlopen(BASE + path, timeout=600) as answer:
        return answer.read()


def complete(n_tokens, seed):
    body = {"prompt": PROMPT, "n_predict": n_tokens, "temperature": 0.9, "seed": seed, "ignore_eos": True, "cache_prompt": False}
    request = urllib.request.Request(BASE + "/completion", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=3600) as answer:
        return json.load(answer)["timings"]


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watcher:
    def __init__(self):
        self.stop = threading.Event()
        every = [("/metrics", 1), ("/hotset/heat", 2), ("/hotset/stats", 5), ("/hotset/plan", 60)]
        self.threads = [threading.Thread(target=self.poll, args=each) for each in every]
        self.threads.append(threading.Thread(target=self.follow))
        for thread in self.threads:
            thread.start()

    def poll(self, path, seconds):
        while not self.stop.is_set():
            get(path)
            self.stop.wait(seconds)

    def follow(self):
        with urllib.request.urlopen(BASE + "/hotset/events", timeout=60) as stream:
            while not self.stop.is_set():
                stream.readline()

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def start(args, before=(), env=()):
    command = [*before, args.server, "-m", args.model, "--port", str(PORT), "--metrics", "-np", "1", "-c", "2048", "-t", "2"]
    settings = {**os.environ, "HOTSET_RAM": args.ram, **dict(env)}
    server = subprocess.Popen(command, env=settings, stdout=subprocess.DEVNULL, stderr=open("/tmp/measure.log", "w"))
    while True:
        try:
            get("/health")
            return server
        except OSError:
            assert server.poll() is None, open("/tmp/measure.log").read()
            time.sleep(0.5)


def end(server):
    server.send_signal(signal.SIGTERM)
    server.wait()


def in_turns(args):
    server = start(args)
    complete(64, 1)
    rows = []
    for round_ in range(args.rounds):
        sides = [False, True]
        random.shuffle(sides)
        for is_watched in sides:
            watcher = Watcher() if is_watched else None
            before = cpu_seconds(server.pid)
            timings = complete(args.tokens, 100 + round_)
            cpu = cpu_seconds(server.pid) - before
            if watcher:
                watcher.end()
            n = timings["predicted_n"]
            row = {"round": round_, "watched": is_watched, "ms_per_token": timings["predicted_per_token_ms"],
                   "cpu_ms_per_token": 1e3 * cpu / n, "experts": timings["experts"]}
            print(row, flush=True)
            rows.append(row)
    end(server)
    return rows


def instructions(args, requests, n_tokens):
    """Instructions of a process that generates so many tokens and answers these requests."""
    out = "/tmp/callgrind.out"
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "-q"]
    server = start(args, valgrind, [("HOTSET_IO", "pread"), ("HOTSET_PREFETCH", "off"), ("HOTSET_STATS", "exit")])
    complete(n_tokens, 1)
    for path in requests:
        get(path)
    end(server)
    return int(re.search(r"^(?:summary|totals): (\d+)", open(out).read(), re.M).group(1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--ram", default="40%")
    parser.add_argument("--instructions", action="store_true")
    args = parser.parse_args()
    if args.instructions:
        n = 20
        base, more = [instructions(args, [], tokens) for tokens in (8, 24)]
        found = {"per_token": (more - base) / 16}
        for path in ["/metrics", "/hotset/stats", "/hotset/heat"]:
            # The first one may look back, in a thread of its own: it is counted by the second number.
            once = instructions(args, [path], 8) - base
            often = instructions(args, [path] * (n + 1), 8) - base
            found[path] = {"first": once, "each": (often - once) / n}
            print(path, found[path], flush=True)
        found["/hotset/plan"] = {"first": instructions(args, ["/hotset/plan"], 8) - base}
        result = found
    else:
        result = in_turns(args)
    json.dump(result, open(args.out, "w"), indent=1)
    print(json.dumps(result)[:400])
