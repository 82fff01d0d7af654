"""A hub of models on loopback: python3 hub.py FOLDER CUTS [CERTIFICATE KEY]

It has the files below FOLDER, as repositories OWNER/NAME and below /files; by https, if there is a certificate. The first CUTS answers with
content end after an eighth of it. Prints its port, then a line for each request: the method, the path, and the range that was asked for.
"""

import hashlib
import json
import os
import re
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

folder, cuts, *tls = sys.argv[1:]
cuts = int(cuts)
COMMIT = "c" * 40


def read(name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def names(below):
    """All files below a folder, relative to it."""
    root = os.path.join(folder, below)
    found = [os.path.join(at, name) for at, _, files in os.walk(root) for name in files]
    return sorted(os.path.relpath(path, root) for path in found)


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def end_headers(self):
        # A client that asked for it may otherwise send its next request just before it notices the end.
        if self.close_connection:
            self.send_header("Connection", "close")
        super().end_headers()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        print(self.command, path, self.headers.get("Range", "-"), flush=True)
        api = re.fullmatch("/api/models/([^/]+/[^/]+)/(refs|tree/.*)", path)
        resolved = re.fullmatch("/([^/]+/[^/]+)/resolve/[^/]+/(.*)", path)
        if api and names(api[1]):
            refs = {"branches": [{"name": "main", "targetCommit": COMMIT}]}
            tree = [self.entry(api[1], name) for name in names(api[1])]
            self.answer(json.dumps(refs if api[2] == "refs" else tree).encode())
        elif resolved:
            # As the hub that everybody uses does, which keeps files elsewhere.
            self.send_response(302)
            self.send_header("Location", f"{scheme}://127.0.0.1:{port}/files/{resolved[1]}/{resolved[2]}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.startswith("/files/") and path[len("/files/"):] in names(""):
            self.content(read(path[len("/files/"):]))
        else:
            self.send_error(404)

    def entry(self, repository, name):
        oid = hashlib.sha256(read(os.path.join(repository, name))).hexdigest()
        return {"type": "file", "path": name, "lfs": {"oid": oid}}

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def content(self, body):
        global cuts
        etag, begin = hashlib.sha256(body).hexdigest(), 0
        if "Range" in self.headers:
            begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        body = body[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cuts:
            cuts -= 1
            body = body[: len(body) // 8]
            self.close_connection = True
        self.wfile.write(body)


scheme = "https" if tls else "http"
server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
port = server.server_address[1]
if tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(port, flush=True)
server.serve_forever()
