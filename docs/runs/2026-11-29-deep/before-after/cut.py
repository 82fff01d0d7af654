"""cut.py TOKEN IN.json OUT.json.gz: one token of a timeline, TOKEN batches from the end, and what is needed to draw it."""
import gzip, json, sys
token, src, out = sys.argv[1:]
events = json.load(open(src))["traceEvents"]
begins = sorted(e["ts"] for e in events if e["name"] == "route layer 0")
token = int(token)
begin, end = begins[-token - 1], begins[-token]
spans = {}
for e in events:
    if e["ph"] in "be":
        spans.setdefault(e["id"], []).append(e)
keep = [e for e in events if e["ph"] not in "be" and ("dur" not in e and e["ph"] == "M" or e.get("ts", 0) < end and e.get("ts", 0) + e.get("dur", 0) >= begin)]
for pair in spans.values():
    if pair[0]["ts"] < end and pair[-1]["ts"] > begin:
        keep += pair
keep += [e for e in events if e["name"] == "route layer 0" and e["ts"] in (begin, end) and e not in keep]
with gzip.GzipFile(out, "wb", mtime=0) as f:
    f.write(json.dumps({"traceEvents": keep}).encode())
