#!/usr/bin/env python3
"""Draws one token of each of several timelines (HOTSET_TIMELINE), one below the other, on one scale.

    picture.py OUT.svg TOKEN TITLE=TIMELINE.json[.gz] ...

TOKEN is how many batches from the end. Needs matplotlib. Prints the sums of what is drawn.
"""

import gzip
import json
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "hotset"
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402

COLOURS = {
    "compute": "#4c78a8",
    "planning": "#9d755d",
    "waiting, asked late": "#e45756",
    "waiting, asked early": "#f2b2a5",
    "read": "#54a24b",
    "read ahead": "#b279a2",
}


def spans(path, token):
    """(row, kind, begin, length) in milliseconds of the token, rows: disk, thread 0, thread 1."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path) as file:
        events = json.load(file)["traceEvents"]
    begins = sorted(e["ts"] for e in events if e["name"] == "route layer 0")
    begin, end = begins[-token - 1], begins[-token]
    reads = {}
    found = []
    for event in events:
        name = event["name"]
        if event["ph"] == "b":
            reads[event["id"]] = event["ts"]
        elif event["ph"] == "e" and not name.startswith("recalled"):
            kind = "read ahead" if name.startswith("read ahead") else "read"
            found.append((0, kind, reads[event["id"]], event["ts"]))
        elif event["ph"] == "X":
            if name.startswith("route"):
                kind = "planning"
            elif name.startswith("wait"):
                kind = "waiting, asked " + name.split()[-1]
            else:
                kind = "compute"
            found.append((1 + event["tid"], kind, event["ts"], event["ts"] + event["dur"]))
    found = [(row, kind, max(a, begin), min(b, end)) for row, kind, a, b in found if a < end and b > begin]
    order = list(COLOURS).index
    found.sort(key=lambda span: (order(span[1]), span[2]))
    return [(row, kind, (a - begin) / 1e3, (b - a) / 1e3) for row, kind, a, b in found], (end - begin) / 1e3


out, token, *timelines = sys.argv[1:]
timelines = [timeline.split("=", 1) for timeline in timelines]
figure, axes = plt.subplots(len(timelines), 1, sharex=True, figsize=(16, 2.1 * len(timelines) + 0.8), squeeze=False)
for axis, (title, path) in zip(axes[:, 0], timelines):
    found, length = spans(path, int(token))
    sums = {}
    for row, kind, begin, took in found:
        axis.broken_barh([(begin, took)], (-row - 0.4, 0.8), facecolors=COLOURS[kind], linewidth=0)
        if row == 1:
            sums[kind] = sums.get(kind, 0) + took  # computing includes waiting
    busy, last = 0.0, 0.0
    for begin, took in sorted((begin, took) for row, _, begin, took in found if row == 0):
        busy += max(0.0, begin + took - max(begin, last))
        last = max(last, begin + took)
    axis.set_title(f"{title}: {length:.1f} ms", loc="left", fontsize=10)
    axis.set_yticks([0, -1, -2], ["disk", "thread 0", "thread 1"])
    axis.spines[["top", "right"]].set_visible(False)
    print(f"{title}: {length:.1f} ms, disk busy {busy:.1f};", ", ".join(f"{k} {v:.1f}" for k, v in sums.items()))
axes[-1, 0].set_xlabel("milliseconds of one token")
handles = [Patch(color=colour, label=kind) for kind, colour in COLOURS.items()]
figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=9)
figure.tight_layout(rect=(0, 0.06, 1, 1))
figure.savefig(out, metadata={"Date": None})
