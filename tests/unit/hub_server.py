"""A local Hugging Face Hub: as much of its interface as its own client needs to get files and whole repositories."""

import hashlib
import json
import re
import time
from contextlib import contextmanager
from urllib.parse import unquote, urlparse

from local_server import QuietHandler, up

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEXT = "89abcdef0123456789abcdef0123456789abcdef"
SLIDE = bytes(range(256)) * 8000

FILES = {
    ("dataset", "owner/hest"): {
        "HEST_v1.csv": "﻿id,organ\nTENX1,kidney\nTENX2,kidney\n".encode(),
        "wsis/TENX1.tif": SLIDE,
        "wsis/TENX2.tif": SLIDE[::-1],
        "st/TENX1.h5ad": SLIDE[:70_000],
    },
    ("model", "owner/weights"): {"config.json": b'{"dim": 8}', "model.safetensors": SLIDE[5:900_000]},
}
LARGE = (".tif", ".h5ad", ".safetensors")
"""Kept as the hub keeps large files: elsewhere, known by their sha256."""


class Hub:
    def __init__(self, server):
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.store = f"http://localhost:{server.server_port}"
        self.files = {key: dict(files) for key, files in FILES.items()}
        self.token = None
        self.commit = COMMIT
        self.asked = []
        self.cut, self.share = 0, 2
        """So many transfers of large files are cut after one `share`-th."""
        self.stop_at = None
        """So many bytes of a large file are sent, then none, and the connection stays."""
        self.expired = []
        """Whether the address of a large file has expired, a request each; then none has."""
        self.ranges = True
        self.served = 0
        """Bytes of large files sent in answer to the last request."""
        self.damage = False
        self.broken = None

    def etag(self, name, content):
        kind = hashlib.sha256 if name.endswith(LARGE) else hashlib.sha1
        return kind(content).hexdigest()


class Handler(QuietHandler):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub, path = self.server.hub, unquote(urlparse(self.path).path)
        hub.asked.append((self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
        if path.startswith("/store/"):
            self.store(hub, path.removeprefix("/store/"))
        elif hub.broken:
            self.error(hub.broken, "", "")
        elif found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(hub, "dataset" if found[1] else "model", *found.groups()[1:])
        elif found := re.fullmatch(r"/api/(dataset|model)s/([^/]+/[^/]+)(?:/revision/([^/]+)|/tree/([^/]+).*)?", path):
            self.api(hub, *found.groups())
        else:
            self.error(404, "", "")

    def allowed(self, hub, kind, repo, revision):
        if (kind, repo) not in hub.files:
            self.error(404, "RepoNotFound", "Repository not found")
        elif revision not in ("main", hub.commit):
            self.error(404, "RevisionNotFound", "Invalid rev id")
        elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self.error(403, "GatedRepo", "Access to this repository is restricted")
        else:
            return True
        return False

    def resolve(self, hub, kind, repo, revision, name):
        if not self.allowed(hub, kind, repo, revision):
            return
        content = hub.files[kind, repo].get(name)
        if content is None:
            self.error(404, "EntryNotFound", "Entry not found")
            return
        etag = hub.etag(name, content)
        headers = {"X-Repo-Commit": hub.commit, "ETag": f'"{etag}"'}
        if name.endswith(LARGE):
            where = f"{hub.store}/store/{kind}/{repo}/{name}"
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content)), "Location": where}
            self.answer(302, headers, b"")
        else:
            self.answer(200, headers, content)

    def store(self, hub, path):
        if hub.expired and hub.expired.pop(0):
            self.error(403, "", "")
            return
        kind, owner, repo, name = path.split("/", 3)
        content = hub.files[kind, f"{owner}/{repo}"][name]
        asked = self.headers.get("Range") if hub.ranges else None
        start = int((asked or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        part = content[start:]
        if hub.damage:
            part = part[:-1] + b"!"
        most = None
        if hub.cut:
            hub.cut -= 1
            most = len(part) // hub.share
        if hub.stop_at is not None:
            most = hub.stop_at
        hub.served = len(part[:most])
        self.answer(206 if start else 200, headers, part, most)

    def api(self, hub, kind, repo, revision, tree):
        if not self.allowed(hub, kind, repo, revision or tree or "main"):
            return
        files = hub.files[kind, repo]
        if tree:
            answer = []
            for name in sorted(files):
                etag, size = hub.etag(name, files[name]), len(files[name])
                entry = {"type": "file", "oid": etag[:40], "size": size, "path": name}
                if name.endswith(LARGE):
                    entry["lfs"] = {"oid": etag, "size": size, "pointerSize": 134}
                answer.append(entry)
        else:
            siblings = [{"rfilename": name} for name in sorted(files)]
            answer = {"id": repo, "sha": hub.commit, "private": False, "tags": [], "downloads": 0, "siblings": siblings}
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def error(self, status, code, message):
        self.answer(status, {"X-Error-Code": code, "X-Error-Message": message} if code else {}, b"")

    def answer(self, status, headers, content, most=None):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:most])
        if most is not None:
            while self.server.hub.stop_at is not None:  # silent until the test goes on
                time.sleep(0.01)
            self.close_connection = True


@contextmanager
def serving():
    """Give a hub that is up."""
    with up(Handler) as server:
        server.hub = Hub(server)
        yield server.hub
