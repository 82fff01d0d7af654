"""Writes the licences of all that a package holds besides hotset's own code.

    licenses.py LLAMA_CPP BORINGSSL ZIG OPENMP_LICENSE RUST < (cargo metadata)

LLAMA_CPP and BORINGSSL are their trees, ZIG the folder of the Python package, OPENMP_LICENSE the text of LLVM's licence, RUST where the
compiler is installed.
"""

import json
import re
import sys
from pathlib import Path

FILES = re.compile(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|UNLICENSE)", re.IGNORECASE)
# Where the text is part of a source file, it is a comment that has one of these words.
WORDS = re.compile(r"Permission is hereby granted|Redistribution and use|released into the public domain")
COMMENT = re.compile(r"/\*.*?\*/|(?:^[ \t]*//[^\n]*\n)+", re.DOTALL | re.MULTILINE)


def texts_of(folder):
    """The licences that lie in a folder."""
    found = (p for p in sorted(folder.iterdir()) if p.is_file() and FILES.match(p.name))
    return [path.read_text(errors="replace").strip() for path in found]


def crates(metadata):
    """What is linked into the programs: no tools of the build, no tests."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    seen, open_ = set(), [root]
    while open_:
        id_ = open_.pop()
        if id_ not in seen:
            seen.add(id_)
            deps = nodes[id_]["deps"]
            is_linked = lambda dep: any(kind["kind"] is None for kind in dep["dep_kinds"])
            open_.extend(dep["pkg"] for dep in deps if is_linked(dep))
    packages = (p for p in metadata["packages"] if p["id"] in seen - {root})
    for package in sorted(packages, key=lambda p: (p["name"], p["version"])):
        name = f"{package['name']} {package['version']} ({package['license'] or 'see below'})"
        yield name, texts_of(Path(package["manifest_path"]).parent)


def sources(llama_cpp):
    """What llama.cpp itself brings."""
    yield "llama.cpp (MIT)", texts_of(llama_cpp)
    for path in sorted((llama_cpp / "licenses").iterdir()):
        yield path.name.removeprefix("LICENSE-"), [path.read_text().strip()]
    for folder in sorted(p for p in (llama_cpp / "vendor").rglob("*") if p.is_dir()):
        texts = texts_of(folder)
        for path in sorted(folder.iterdir()):
            if path.suffix in {".h", ".hpp", ".c", ".cpp"}:
                comments = COMMENT.findall(path.read_text(errors="replace"))
                texts += [comment.strip() for comment in comments if WORDS.search(comment)]
        if texts:
            yield str(folder.relative_to(llama_cpp / "vendor")), list(dict.fromkeys(texts))


def page(llama_cpp):
    """What the page of llama-server may hold: it is built with these packages, and keeps the notices in its files."""
    lock = json.loads((llama_cpp / "tools/ui/package-lock.json").read_text())
    for path, package in sorted(lock["packages"].items()):
        if path and not package.get("optional"):
            name = path.rsplit("node_modules/", 1)[-1]
            yield f"{name} {package.get('version')} ({package.get('license', 'see the package')})"


def main():
    llama_cpp, boringssl, zig, llvm, rust = map(Path, sys.argv[1:])
    of_rust = rust / "share/doc/rust/licenses/MIT.txt"
    apache = llvm.read_text().strip()
    entries = [
        ("LLVM's OpenMP runtime, libc++, libc++abi and libunwind (Apache-2.0 WITH LLVM-exception)", [apache]),
        ("Rust's standard library (MIT OR Apache-2.0)", [of_rust.read_text().strip()]),
        ("Zig's compiler runtime (MIT)", [(zig / "LICENSE").read_text().strip()]),
        ("BoringSSL", texts_of(boringssl)),
        *sources(llama_cpp),
        *crates(json.load(sys.stdin)),
    ]
    by_text = {}
    for name, texts in entries:
        for text in texts or ["(It has no file with a text of its own.)"]:
            by_text.setdefault(text, []).append(name)
    print("What this package holds besides hotset's own code, with the licences that go with it.")
    for text, names in by_text.items():
        print("\n" + "=" * 80, *names, "-" * 80, text, sep="\n")
    print("\n" + "=" * 80, "Packages that llama-server's page is built with", "-" * 80, *page(llama_cpp), sep="\n")


main()
