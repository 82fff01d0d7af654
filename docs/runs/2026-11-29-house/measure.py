"""Makes two examples of benches/route.rs and benches/plan.rs that do a number of passes and no timing, for callgrind:
`measure PASSES POLICY BYTES` (an engine with so much memory) and `measure_plan PASSES POLICY PERCENT` (a device that
holds so many of the experts). Run it at the top of the project."""

import re
from pathlib import Path

ARGUMENTS = """fn main() {
    let args: Vec<String> = std::env::args().collect();
    let n: u32 = args[1].parse().unwrap();
"""

ENGINE = ARGUMENTS + """    let engine = engine(&args[2]);
%s    for _ in 0..n {
        for (layer, ids, rows) in &routing {
            token(&engine, *layer, ids, rows);
        }
    }
    let n_reads = engine.meter().n_reads.load(std::sync::atomic::Ordering::Relaxed);
    println!("{} {n_reads}", routing.len() * TOP_K as usize);
}
"""

DEVICE = ARGUMENTS + """%s    let percent: usize = args[3].parse().unwrap();
    let policy = args[2].as_str();
%s    let mut misses = 0;
    for _ in 0..n {
        misses += pass(&cache, &routing);
    }
    let n_picks: usize = routing.iter().map(|(_, ids)| ids.len()).sum();
    println!("{n_picks} {misses}");
}
"""


def cut(text, begin, end):
    """Lines of `text` from the one that begins with `begin` up to the next that begins with `end`."""
    at = text.index("\n" + begin) + 1
    return text[at : text.index("\n" + end, at) + 1]


def without(text, *parts):
    for part in parts:
        text = text.replace(part, "")
    return re.sub(r"^(//!|use criterion).*\n", "", text, flags=re.M)


route = Path("benches/route.rs").read_text()
timed = [cut(route, f"fn {name}(", "}") + "}\n" for name in ("route", "track", "stream", "main")]
code = without(route, *timed).replace("u64::MAX", "std::env::args().nth(3).unwrap().parse().unwrap()")
engine = ENGINE % cut(timed[2], "    let routing", "    let n_picks")

plan = Path("benches/plan.rs").read_text()
main = cut(plan, "fn main(", "}") + "}\n"
routing = without(cut(main, "    let ", "    let n_picks"), "    let mut criterion = Criterion::default().configure_from_args();\n")
device = DEVICE % (routing, cut(main, "            let pool", "            pass("))

head = "#![allow(dead_code, missing_docs, unused_imports)]\n"
Path("examples/measure.rs").write_text(head + code + engine)
Path("examples/measure_plan.rs").write_text(head + without(plan, main) + device)
