"""Upstream's own tests of llama-server, without hotset and with experts that stream: both see the same.

    python3 run.py --server LLAMA-SERVER --suite FOLDER --templates FOLDER --model MODEL --work FOLDER [--report FILE] [TEST ...]

Their folder is copied to --work, which keeps what pip installs; --templates has the templates of chats that they name. Their models are ours, from a hub on loopback: a test that wants to read
certain words fails, both times. Compared are the outcome of each test, its assertions and all answers of its servers. What differs runs
again, both ways. It is a difference if the ways never have an outcome, or its assertions, in common; of answers, and of why a test failed, if
one way always gives the same, and the other one never does.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
HUB = HERE.parent / "downloads/hub.py"
# As stock is by default, experts are repacked where the processor has code for that.
WAYS = {"off": {"HOTSET": "off"}, "on": {"HOTSET_RAM": "30%", "HOTSET_REPACK": "on"}}
COMPARED = ["outcome", "assertions", "why", "answers"]
# Of these it is no excuse that neither way gives the same twice.
STEADY = ["outcome", "assertions"]
# How often a test that differs runs again.
TRIALS = 3


def install(work, suite):
    """What the tests need, for PYTHONPATH."""
    packages, stamp = work / "packages", work / "installed"
    wanted = (suite / "requirements.txt").read_text() + "gguf~=0.19\n"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(packages, ignore_errors=True)
        requirements = work / "requirements.txt"
        requirements.write_text(wanted)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", packages, "-r", requirements], check=True)
        stamp.write_text(wanted)
    return packages


def free_port():
    """One below those that clients get by themselves, so that it stays free while no server has it."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


class Suite:
    def __init__(self, args, packages, hub):
        self.args, self.packages, self.hub = args, packages, hub

    def start(self, way, name, tests):
        """Starts tests one way, in a tree of their own."""
        tree = self.args.work / f"{way}-{name}"
        shutil.rmtree(tree, ignore_errors=True)
        folder = tree / "tools/server/tests"
        shutil.copytree(self.args.suite, folder)
        (folder / "tmp").mkdir(exist_ok=True)
        (tree / "models").mkdir()
        (tree / "models/templates").symlink_to(self.args.templates)
        env = {name: value for name, value in os.environ.items() if not name.startswith(("HOTSET", "LLAMA_"))}
        env |= WAYS[way] | {
            "HOTSET_PROFILE": "off",
            "OMP_WAIT_POLICY": "passive",
            # What git ignores here is not ignored there.
            "GIT_CEILING_DIRECTORIES": str(self.args.work),
            "LLAMA_SERVER_BIN_PATH": str(self.args.server),
            "LLAMA_CACHE": str(tree / "cache"),
            "MODEL_ENDPOINT": self.hub,
            "PORT": str(free_port()),
            "PYTHONPATH": os.pathsep.join(map(str, [HERE, folder, self.packages])),
            "PYTHONDONTWRITEBYTECODE": "1",
            "RECORD_HUB": self.hub,
            "RECORD_TO": str(tree / "record"),
        }
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "record", "-o", "enable_assertion_pass_hook=true", "-m", "not slow"]
        with open(tree / "log", "w") as log:
            process = subprocess.Popen([*pytest, *tests], cwd=folder, env=env, stdout=log, stderr=log)
        return process, tree

    def run(self, name, tests):
        """What both ways gave, by test."""
        started = {way: self.start(way, name, tests) for way in WAYS}
        records = {}
        for way, (process, tree) in started.items():
            # 1: some tests failed.
            if process.wait() not in (0, 1):
                sys.exit(f"pytest ended with {process.returncode}:\n" + (tree / "log").read_text())
            lines = (tree / "record").read_text().splitlines()
            records[way] = {line["test"]: line for line in map(json.loads, lines)}
            shutil.rmtree(tree / "cache", ignore_errors=True)
        return records


def value(run, way, test, what):
    """As text, which can be in a set."""
    return json.dumps(run[way].get(test, {}).get(what))


def different(runs, test):
    """In what a test differs; and in what it differs from itself."""
    found, unsteady = [], []
    for what in COMPARED:
        of = {way: {value(run, way, test, what) for run in runs if test in run["off"] | run["on"]} for way in WAYS}
        if not of["off"] & of["on"]:
            is_steady = what in STEADY or any(len(values) == 1 for values in of.values())
            (found if is_steady else unsteady).append(what)
    return found, unsteady


def outcome(record):
    """What pytest says of a test, in a word."""
    words = [word for _, word in record["outcome"]]
    return next((word for word in ("failed", "skipped") if word in words), "passed")


def compare(suite, tests):
    """Runs the tests until nothing differs, or for good; returns the first runs, the differences and what differs from itself."""
    runs = [suite.run("all", tests)]
    tests = sorted(runs[0]["off"] | runs[0]["on"])
    while len(runs) <= TRIALS and (suspects := [test for test in tests if different(runs, test)[0]]):
        runs.append(suite.run(f"again-{len(runs)}", suspects))
    differences = [test for test in tests if different(runs, test)[0]]
    for test in differences:
        for what in different(runs, test)[0]:
            off, on = (json.loads(value(runs[-1], way, test, what)) for way in WAYS)
            print(f"{test}: {what}\n  off {off}\n  on  {on}")
    return runs[0], differences, [test for test in tests if test not in differences and different(runs, test)[1]]


def summary(records, differences, unsteady):
    lines = ["| | passed | failed | skipped | with experts that stream | assertions that hold | answers |", "|---|---|---|---|---|---|---|"]
    for way, tests in records.items():
        counts = collections.Counter(outcome(record) for record in tests.values())
        counts["streams"] = sum(record["streams"] > 0 for record in tests.values())
        counts |= {what: sum(len(record[what]) for record in tests.values()) for what in ["assertions", "answers"]}
        cells = [counts[name] for name in ["passed", "failed", "skipped", "streams", "assertions", "answers"]]
        lines.append(f"| {way} | " + " | ".join(map(str, cells)) + " |")
    lines.append(f"\ndifferent: {len(differences)} {differences}\nunlike themselves: {len(unsteady)} {unsteady}")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    for name in ["server", "suite", "templates", "model", "work", "report"]:
        parser.add_argument(f"--{name}", type=lambda path: pathlib.Path(path).resolve(), required=name != "report")
    parser.add_argument("tests", nargs="*")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    packages = install(args.work, args.suite)
    sys.path.append(str(packages))
    import models

    files = args.work / "files"
    shutil.rmtree(files, ignore_errors=True)
    models.make(args.model, files)
    hub = subprocess.Popen([sys.executable, HUB, files, "0"], stdout=subprocess.PIPE, text=True)
    try:
        suite = Suite(args, packages, f"http://127.0.0.1:{hub.stdout.readline().strip()}/")
        # Its lines are of no interest, but have to go somewhere.
        threading.Thread(target=hub.stdout.read, daemon=True).start()
        records, differences, unsteady = compare(suite, args.tests)
    finally:
        hub.kill()
    text = summary(records, differences, unsteady)
    print(text)
    if args.report:
        args.report.write_text(text + listing(records))
    streams = {way: any(record["streams"] for record in tests.values()) for way, tests in records.items()}
    if streams != {"off": False, "on": True}:
        sys.exit(f"which way streams: {streams}")
    sys.exit(bool(differences))


def listing(records):
    """Each test on a line: what became of it, and how long it took."""
    lines = [
        f"{outcome(record):8}{records['on'][test]['seconds']:6.1f} s on {record['seconds']:6.1f} s off  {test}"
        for test, record in records["off"].items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
