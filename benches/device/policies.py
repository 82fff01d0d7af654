"""Sessions on a server, one after the other: each class of text, and all classes in turn."""

import csv
import hashlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request

from common import HOTSET, OUT, THREADS, WORK, env, mib_for, number, program, upstream_counters

CLASSES = ["it", "en", "de", "fr", "code"]
N_TOKENS = number("TOKENS", 96)
SHARES = [int(share) for share in os.environ.get("SHARES", "10 20 30 50").split()]
POLICIES = os.environ.get("POLICIES", "lru adaptive").split()
# Requests of a session, and bytes of a prompt.
N_REQUESTS, N_PROMPT = 5, 300


def prompts(session):
    """Pieces of the texts in benches/prompts."""
    classes = CLASSES if session == "mixed" else [session] * N_REQUESTS
    for i, name in enumerate(classes):
        text = open(f"benches/prompts/{name}.txt", encoding="utf-8").read()
        begin = text.index(" ", i * 600) + 1
        yield text[begin:begin + N_PROMPT]


def ask(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def run(session, mib, settings):
    """Answers all requests of a session; the text, the tokens and what the program said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = program("server", "--host", "127.0.0.1", "--port", port, "-np", "1", "-c", "1024", *THREADS,
                      "--no-webui", "--moe-cache-mib", mib, "-lv", "4")
    with open(f"{WORK}/log", "w+") as log:
        server = subprocess.Popen(command, env=env(settings), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            while True:
                try:
                    urllib.request.urlopen(f"{url}/health")
                    break
                except OSError:
                    assert server.poll() is None, open(f"{WORK}/log").read()
                    time.sleep(0.1)
            body = {"n_predict": N_TOKENS, "temperature": 0.9, "seed": 1, "ignore_eos": True, "cache_prompt": False}
            answers = [ask(f"{url}/completion", body | {"prompt": prompt}) for prompt in prompts(session)]
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
        log.seek(0)
        text = "".join(answer["content"] for answer in answers)
        return hashlib.sha256(text.encode()).hexdigest()[:12], log.read()


def ours(session, mib, policy):
    stats, trace, replayed = (f"{WORK}/{name}" for name in ("run.json", "run.trace.gz", "replay.json"))
    settings = {"HOTSET_POLICY": policy, "HOTSET_DEVICE_CACHE": "on", "HOTSET_STATS": stats, "HOTSET_TRACE": trace}
    text, _ = run(session, mib, settings)
    device = json.load(open(stats))[-1]["devices"][0]
    counters = device["generation"]
    subprocess.run([HOTSET, "replay", trace, "--budgets", "run", "--policies", policy, "--format", "json", "-o", replayed],
                   check=True)
    replay = next(cell for cell in json.load(open(replayed))["cells"] if cell["policy"] == policy)
    for key in "hits", "misses":
        assert counters[key] == replay[key], f"{session} {mib} {policy}: {counters[key]} {key}, replayed {replay[key]}"
    return text, counters["hits"], counters["misses"], device["bytes_uploaded"], device["n_slots"], counters["tokens"]


def upstream(session, mib):
    text, log = run(session, mib, {"HOTSET": "off"})
    hits, misses, uploaded = upstream_counters(log)
    return text, hits, misses, round(uploaded * 2**20), 0, 0


def main():
    fields = ["session", "share", "mib", "variant", "text", "hits", "misses", "bytes_uploaded", "n_slots", "tokens"]
    sizes = {share: mib_for(share) for share in SHARES}
    rows = []
    with open(f"{OUT}/policies.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(fields)
        for session in CLASSES + ["mixed"]:
            for share in SHARES:
                for variant in ["upstream"] + POLICIES:
                    mib = sizes[share]
                    result = upstream(session, mib) if variant == "upstream" else ours(session, mib, variant)
                    rows.append([session, share, mib, variant, *result])
                    table.writerow(rows[-1])
                    file.flush()
    check([dict(zip(fields, row)) for row in rows])


def check(rows):
    rate = lambda row: 100 * row["hits"] / (row["hits"] + row["misses"])
    print(f"\n{'session':<8}{'fits':>5}" + "".join(f"{name:>22}" for name in ["upstream"] + POLICIES))
    cells = {}
    for row in rows:
        cells.setdefault((row["session"], row["share"]), {})[row["variant"]] = row
    for (session, share), variants in cells.items():
        n_tokens = variants["adaptive"]["tokens"]
        texts = {row["text"] for row in variants.values()}
        picks = {row["hits"] + row["misses"] for row in variants.values()}
        assert len(texts) == 1, f"{session} {share}: different texts"
        assert len(picks) == 1, f"{session} {share}: different routing"
        shown = (f"{rate(row):>8.1f} %{row['bytes_uploaded'] / n_tokens / 2**20:>8.2f} MiB" for row in variants.values())
        print(f"{session:<8}{share:>3} %" + "".join(shown))
        behind = rate(variants["upstream"]) - rate(variants["adaptive"])
        assert behind <= 0.3, f"{session} {share}: adaptive hits {behind:.2f} points less than upstream"
    print("hits, and MiB uploaded a token; all hits are those of the replayed traces, all texts are the same")


main()
