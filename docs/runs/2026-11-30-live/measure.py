"""What being watched costs a llama-server: tokens per second and processor time per token, in turns of random order,
and processor time of each request.

    python3 measure.py LLAMA_SERVER MODEL OUT [--rounds 14] [--tokens 128] [--ram 40%] [--requests | --instructions]

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
SEED = 7
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


def start(args, before=(), env={}):
    command = [*before, args.server, "-m", args.model, "--port", str(PORT), "--metrics", "-np", "1", "-c", "2048", "-t", "2"]
    settings = {**os.environ, "HOTSET_RAM": args.ram, **env}
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
    # The same text each time, until nothing changes any more in what is resident.
    for _ in range(4):
        complete(args.tokens, SEED)
    rows = []
    for round_ in range(args.rounds):
        sides = [False, True]
        random.shuffle(sides)
        for is_watched in sides:
            watcher = Watcher() if is_watched else None
            before = cpu_seconds(server.pid)
            timings = complete(args.tokens, SEED)
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


def requests(args):
    """Milliseconds of processor time of the server for each request, while it computes nothing else."""
    server = start(args)
    complete(300, SEED)
    get("/hotset/plan")
    time.sleep(10)
    found = {}
    for path, n in [("/metrics", 1500), ("/hotset/stats", 1500), ("/hotset/heat", 1500), ("/hotset", 1500)]:
        before = cpu_seconds(server.pid)
        for _ in range(n):
            get(path)
        found[path] = 1e3 * (cpu_seconds(server.pid) - before) / n
        print(path, found[path], flush=True)
    before = cpu_seconds(server.pid)
    with urllib.request.urlopen(BASE + "/hotset/events", timeout=60) as stream:
        n = 0
        while n < 40:
            n += stream.readline().startswith(b"data:")
    found["/hotset/events"] = 1e3 * (cpu_seconds(server.pid) - before) / 40
    # A server of its own, because plans rest.
    end(server)
    server = start(args)
    complete(300, SEED)
    for path in ["/hotset/plan", "/metrics"]:
        before = cpu_seconds(server.pid)
        get(path)
        time.sleep(5)
        found[path + " the first time"] = 1e3 * (cpu_seconds(server.pid) - before)
    end(server)
    return found


def instructions(args):
    """Instructions of hotset's part of each request, and of the whole process, by callgrind: for a small model."""
    out, n, n_tokens = "/tmp/measure.callgrind", 60, 100
    server = start(args, ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "-q"], {"HOTSET_IO": "pread", "HOTSET_STATS": "off"})
    complete(n_tokens, SEED)
    for path in ["/metrics", "/hotset/stats", "/hotset/heat"]:
        for _ in range(n):
            get(path)
    end(server)
    annotated = subprocess.run(["callgrind_annotate", "--inclusive=yes", "--threshold=100", out], capture_output=True, text=True).stdout

    def of(function):
        found = re.findall(rf"^\s*([\d,]+) .*{function}", annotated, re.M)
        return max(int(number.replace(",", "")) for number in found)

    return {"/metrics": of("http_hook::metrics") / n, "/hotset/stats": of("llama::live::stats") / n,
            "/hotset/heat": of("llama::live::heat") / n, f"everything, with {n_tokens} tokens": of("PROGRAM TOTALS")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--rounds", type=int, default=14)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--ram", default="40%")
    parser.add_argument("--requests", action="store_true")
    parser.add_argument("--instructions", action="store_true")
    args = parser.parse_args()
    if args.instructions:
        result = instructions(args)
    elif args.requests:
        result = requests(args)
    else:
        result = in_turns(args)
    json.dump(result, open(args.out, "w"), indent=1)
    print(json.dumps(result)[:400])
