"""A hub of models on loopback, by https: python3 hub.py CERTIFICATE KEY FOLDER CUTS REPOSITORY

It has the files of FOLDER, as REPOSITORY and below /files. The first CUTS answers with content end after an eighth of it. Prints its port,
then a line for each request: the method, the path, and the range that was asked for.
"""

import hashlib
import json
import os
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

certificate, key, folder, cuts, repository = sys.argv[1:]
cuts = int(cuts)
COMMIT = "c" * 40


def read(name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        print(self.command, path, self.headers.get("Range", "-"), flush=True)
        api, files = f"/api/models/{repository}/", f"/{repository}/resolve/{COMMIT}/"
        if path == api + "refs":
            self.answer(json.dumps({"branches": [{"name": "main", "targetCommit": COMMIT}]}).encode())
        elif path == f"{api}tree/{COMMIT}":
            self.answer(json.dumps([self.entry(name) for name in sorted(os.listdir(folder))]).encode())
        elif path.startswith(files):
            # As the hub that everybody uses does, which keeps files elsewhere.
            self.send_response(302)
            self.send_header("Location", f"https://127.0.0.1:{port}/files/" + path[len(files):])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.startswith("/files/") and os.path.basename(path) in os.listdir(folder):
            self.content(read(os.path.basename(path)))
        else:
            self.send_error(404)

    def entry(self, name):
        oid = hashlib.sha256(read(name)).hexdigest()
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


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
port = server.server_address[1]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(port, flush=True)
server.serve_forever()
