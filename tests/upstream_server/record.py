"""A plugin of pytest's: gives upstream's tests our hub, and writes down all that they see.

RECORD_HUB is the address of the hub, RECORD_TO a file for a line of JSON for each test: its outcome, each assertion, what the
servers answered, and how often one said that it streams.
"""

import json
import os
import pathlib
import re

import pytest

pytest.register_assert_rewrite("utils")

import requests  # noqa: E402
import utils  # noqa: E402
import wget  # noqa: E402

HUB = os.environ["RECORD_HUB"]
EVERYWHERE = "https://huggingface.co/"
# What no two runs have in common: times, names of the hour, and where things are.
VOLATILE = {"created", "id", "id_slot", "media_marker", "time_ms", "timings"}
CHANGING = [
    (r"0x[0-9a-f]+", "0x"),
    (r"\b[0-9a-zA-Z_-]{20,}\b", "ID"),
    (r"port=?\s?\d+|:\d{4,5}\b", "PORT"),
    (r"\d+\.\d+(e-?\d+)?", "REAL"),
    # A dictionary that was cut where its text was too long: the timings.
    (r"\.\.\.[^{}]*\}", "CUT"),
]

# Where the tree is that these tests are in.
TREE = str(pathlib.Path.cwd().parents[2])

seen = {"assertions": [], "answers": []}


def steady(value):
    """What does not change from run to run."""
    if isinstance(value, dict):
        return {key: steady(of) for key, of in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [steady(of) for before, of in zip([None, *value], value) if before != "--port"]
    return value


def answered(answer):
    """An answer as text, without where things are."""
    text = json.dumps(answer, sort_keys=True).replace(TREE, "TREE")
    return re.sub(r"(?<=127.0.0.1:)\d+|(?<=/pytest-)\d+", "N", text)


def why(report):
    """Why a test failed or was skipped."""
    if report.skipped:
        _, line, text = report.longrepr
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        line, text = (crash.lineno, crash.message) if crash else (0, str(report.longrepr))
    for pattern, by in CHANGING:
        text = re.sub(pattern, by, text)
    return [line, text]


def local(call):
    """The same function, which asks our hub for what the tests want of the hub that everybody uses."""
    return lambda url, *args, **kwargs: call(url.replace(EVERYWHERE, HUB), *args, **kwargs)


wget.download, requests.get = local(wget.download), local(requests.get)


def answers(server, *args, **kwargs):
    result = request(server, *args, **kwargs)
    if args[1] != "/health":
        seen["answers"].append([args[0], args[1], result.status_code, steady(result.body)])
    return result


def parts(server, *args, **kwargs):
    for part in stream(server, *args, **kwargs):
        seen["answers"].append([args[0], args[1], steady(part)])
        yield part


request, stream = utils.ServerProcess.make_request, utils.ServerProcess.make_stream_request
utils.ServerProcess.make_request, utils.ServerProcess.make_stream_request = answers, parts


def load_all():
    """Has all models of the presets downloaded. A server that refuses ours says why in the tests that want it."""
    for preset in vars(utils.ServerPreset).values():
        if isinstance(preset, staticmethod):
            server = preset()
            server.offline = False
            try:
                server.start()
            except RuntimeError:
                pass
            server.stop()


utils.ServerPreset.load_all = load_all


def pytest_assertion_pass(item, lineno, orig, expl):
    seen["assertions"].append((lineno, orig))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    seen.update(assertions=[], answers=[], reports=[])
    yield
    reports = seen["reports"]
    said = "".join(text for report in reports[-1:] for _, text in report.sections)
    line = {
        "test": item.nodeid,
        "outcome": [[report.when, report.outcome] for report in reports],
        "why": [why(report) for report in reports if report.longrepr],
        # A test that waits asks as often as it takes.
        "assertions": sorted(set(seen["assertions"])),
        # Of requests that a test makes at the same time nobody knows the order.
        "answers": sorted(map(answered, seen["answers"])),
        "streams": len(re.findall("hotset: .* layers stream ", said)),
        "seconds": round(sum(report.duration for report in reports), 2),
    }
    with open(os.environ["RECORD_TO"], "a") as file:
        file.write(json.dumps(line) + "\n")


def pytest_runtest_logreport(report):
    seen["reports"].append(report)
