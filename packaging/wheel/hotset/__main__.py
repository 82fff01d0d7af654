"""Runs a program of this package in place of Python, so that signals, input and exit status are its own."""

import os
import sys
from pathlib import Path

PROGRAMS = Path(__file__).resolve().parent / "programs"


def run(name):
    # One file is all programs but this one: the name says which is meant.
    file = name if name == "ggml-rpc-server" else "hotset"
    os.execv(PROGRAMS / file, [name, *sys.argv[1:]])


def hotset():
    run("hotset")


def llama_cli():
    run("llama-cli")


def llama_server():
    run("llama-server")


def llama_bench():
    run("llama-bench")


def llama_perplexity():
    run("llama-perplexity")


def llama_completion():
    run("llama-completion")


def ggml_rpc_server():
    run("ggml-rpc-server")


if __name__ == "__main__":
    hotset()
