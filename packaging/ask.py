"""Starts a server, asks it for its health and for a text, and ends it as a service manager does.

    ask.py COMMAND...     without --port, which is chosen here
"""

import gzip
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def ask(address, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
    request = urllib.request.Request(address, data, headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        answer = response.read()
        is_packed = response.headers.get("Content-Encoding") == "gzip"
    return (gzip.decompress(answer) if is_packed else answer).decode(errors="replace")


def wait_for(address, server):
    begin = time.monotonic()
    while server.poll() is None and time.monotonic() - begin < 120:
        try:
            return ask(address)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    sys.exit("the server does not answer")


def main():
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    begin = time.monotonic()
    server = subprocess.Popen([*sys.argv[1:], "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        health = wait_for(f"{address}/health", server)
        print(f"GET /health: {health.strip()} after {time.monotonic() - begin:.1f} s")
        print(f"GET /: {len(ask(address))} characters of a page")
        body = {"prompt": "Il file di configurazione", "n_predict": 32, "temperature": 0}
        answer = json.loads(ask(f"{address}/v1/completions", body))
        text = answer["choices"][0]["text"]
        print(f"POST /v1/completions: {text!r}")
        if answer["usage"]["completion_tokens"] < 8:
            sys.exit("that is no text")
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(60)
    print(f"ended with status {status}")
    sys.exit(0 if status in (0, -signal.SIGTERM) else 1)


main()
