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

from common import CLASSES, OUT, THREADS, WORK, env, mib_for, number, program, prompt, replay, upstream_counters

N_TOKENS = number("TOKENS", 96)
SHARES = [int(share) for share in os.environ.get("SHARES", "10 20 30 50").split()]
POLICIES = os.environ.get("POLICIES", "adaptive").split()
# Policies of llama.cpp's own cache, as it was and as it became: replayed on what was recorded of another.
REPLAYED = ["lru", "slru", "classlru"]
# Requests of a session.
N_REQUESTS = 5


def prompts(session):
    """Pieces of the texts in benches/prompts."""
    classes = CLASSES if session == "mixed" else [session] * N_REQUESTS
    return [prompt(name, i) for i, name in enumerate(classes)]


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
    """What a run came to, and what its routing does under the policies to compare with."""
    stats, trace = f"{WORK}/run.json", f"{WORK}/run.trace.gz"
    settings = {"HOTSET_POLICY": policy, "HOTSET_DEVICE_CACHE": "on", "HOTSET_STATS": stats, "HOTSET_TRACE": trace}
    text, _ = run(session, mib, settings)
    device = json.load(open(stats))[-1]["devices"][0]
    counters = device["generation"]
    cells = replay(trace, dict.fromkeys([policy, *REPLAYED]))
    for key in "hits", "misses":
        found = cells[policy][key]
        assert counters[key] == found, f"{session} {mib} {policy}: {counters[key]} {key}, replayed {found}"
    n_bytes = device["bytes_uploaded"] / counters["misses"]
    rest = device["n_slots"], counters["tokens"]
    others = {name: (text, cells[name]["hits"], cells[name]["misses"], round(n_bytes * cells[name]["misses"]), *rest)
              for name in REPLAYED}
    return (text, counters["hits"], counters["misses"], device["bytes_uploaded"], *rest), others


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
                mib = sizes[share]
                results, replayed = {"upstream": upstream(session, mib)}, {}
                for policy in POLICIES:
                    results[policy], replayed = ours(session, mib, policy)
                # What was run counts, where it was replayed, too.
                for variant, result in (replayed | results).items():
                    rows.append([session, share, mib, variant, *result])
                    table.writerow(rows[-1])
                file.flush()
    check([dict(zip(fields, row)) for row in rows])


def check(rows):
    rate = lambda row: 100 * row["hits"] / (row["hits"] + row["misses"])
    cells = {}
    for row in rows:
        cells.setdefault((row["session"], row["share"]), {})[row["variant"]] = row
    print(f"\n{'session':<8}{'fits':>5}" + "".join(f"{name:>22}" for name in next(iter(cells.values()))))
    for (session, share), variants in cells.items():
        n_tokens = variants["adaptive"]["tokens"]
        texts = {row["text"] for row in variants.values()}
        picks = {name: row["hits"] + row["misses"] for name, row in variants.items()}
        n_picks = picks["adaptive"]
        # llama.cpp also counts the token by which it tries, as it starts, what its context can do.
        picks["upstream"] -= n_picks // n_tokens
        assert len(texts) == 1, f"{session} {share}: different texts"
        assert set(picks.values()) == {n_picks}, f"{session} {share}: different routing: {picks}"
        shown = (f"{rate(row):>8.1f} %{row['bytes_uploaded'] / n_tokens / 2**20:>8.2f} MiB" for row in variants.values())
        print(f"{session:<8}{share:>3} %" + "".join(shown))
        behind = max(rate(variants[name]) for name in REPLAYED) - rate(variants["adaptive"])
        assert behind <= 0.3, f"{session} {share}: adaptive hits {behind:.2f} points less than one of llama.cpp's policies"
    print("hits, and MiB uploaded a token; all hits are those of the replayed traces, all texts are the same")
    for share in SHARES:
        here = [variants for (_, of), variants in cells.items() if of == share]
        best = [max((variants[name] for name in REPLAYED), key=rate) for variants in here]
        mean = lambda values: sum(values) / len(here)
        sent = sum(variants["adaptive"]["bytes_uploaded"] for variants in here) / sum(row["bytes_uploaded"] for row in best)
        print(f"{share:>3} %: the best of {', '.join(REPLAYED)} in each cell {mean(map(rate, best)):.1f} %, "
              f"adaptive {mean(rate(variants['adaptive']) for variants in here):.1f} %, bytes {100 * sent:.0f} %")


main()
