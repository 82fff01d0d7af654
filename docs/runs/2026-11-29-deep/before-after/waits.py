#!/usr/bin/env python3
"""Operations of the latest 40 tokens of a timeline (HOTSET_TIMELINE, two threads), by whether a thread waits in them.

    waits.py TIMELINE.json

Microseconds, medians and means: how long each thread computes, how long one has ended before the other, how long it is
until the next operation, and how long each waits for experts.
"""

import bisect
import json
import statistics
import sys

COLUMNS = ["thread 0 computes", "thread 1", "0 ends earlier", "1 earlier", "until the next", "0 waits", "1 waits"]

with open(sys.argv[1]) as file:
    events = [event for event in json.load(file)["traceEvents"] if event["ph"] == "X"]
tokens = sorted(event["ts"] for event in events if event["name"] == "route layer 0")
events = sorted((event for event in events if event["ts"] > tokens[-40]), key=lambda event: event["ts"])


def of_thread(thread, name):
    return [event for event in events if event["tid"] == thread and event["name"].startswith(name)]


operations = [of_thread(thread, "layer") for thread in (0, 1)]
waits = [of_thread(thread, "wait") for thread in (0, 1)]
begins = [[event["ts"] for event in of] for of in waits]


def waited(thread, operation):
    end = operation["ts"] + operation["dur"]
    first, last = bisect.bisect(begins[thread], operation["ts"] - 1), bisect.bisect(begins[thread], end)
    return sum(event["dur"] for event in waits[thread][first:last])


rows = {"nobody waits": [], "somebody waits": []}
for number, pair in enumerate(zip(*operations)):
    ends = [operation["ts"] + operation["dur"] for operation in pair]
    stalls = [waited(thread, operation) for thread, operation in enumerate(pair)]
    following = operations[0][number + 1]["ts"] if number + 1 < len(operations[0]) else max(ends)
    computes = [operation["dur"] - stall for operation, stall in zip(pair, stalls)]
    gaps = [max(0, ends[1] - ends[0]), max(0, ends[0] - ends[1]), following - max(ends)]
    rows["somebody waits" if any(stalls) else "nobody waits"].append(computes + gaps + stalls)
for name, of in rows.items():
    print(f"{name}: {len(of)} operations")
    for measure in (statistics.median, statistics.mean):
        values = [f"{column} {measure(values):.0f}" for column, values in zip(COLUMNS, zip(*of))]
        print(f"  {measure.__name__}: {', '.join(values)}")
