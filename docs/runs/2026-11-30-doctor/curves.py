"""Hit curves of hotset doctor, from what `hotset replay --format csv` says of many traces.

usage: curves.py curves.csv
Traces of one model are averaged first, so that no model counts more than another. Of the models the least, the median and the
greatest hit rate at each budget are printed. Left out are traces in which a model repeats itself. Traces of some 150 tokens
say nothing of large budgets but the greatest: most of their misses are first uses.
"""
import csv
import statistics
import sys

LOOPS = {"qwen15moe-gnf4-code", "qwen15moe-gnf4-math", "granite3b-gnf4-math"}
SHORT = {"gemma4", "gptoss120b"}
SHORT_MAX = 40
models = {}
for row in csv.DictReader(open(sys.argv[1])):
    if row["policy"] == "adaptive" and row["trace"] not in LOOPS:
        by_budget = models.setdefault(row["trace"].split("-")[0], {})
        by_budget.setdefault(float(row["budget"].rstrip("%")), []).append(float(row["hit_rate"]))
budgets = sorted(next(iter(models.values())))
print("%-14s" % "" + "".join("%6.0f" % b for b in budgets))
means = {m: [statistics.mean(of[b]) for b in budgets] for m, of in models.items()}
for model, hits in means.items():
    print("%-14s" % model + "".join("%6.2f" % h for h in hits))

def hits(pick, budget, at):
    said = {m: of[at] for m, of in means.items()}
    if pick is not max and budget > SHORT_MAX:
        said = {m: hit for m, hit in said.items() if m not in SHORT}
    return pick(said.values())


for name, pick in ("flat", min), ("typical", statistics.median), ("concentrated", max):
    print("%-14s" % name + "".join("%6.2f" % hits(pick, b, at) for at, b in enumerate(budgets)))
