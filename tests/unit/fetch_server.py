"""A web server with the faults of real ones, each told by the address; it notes what it was asked."""

import threading
import time
from contextlib import contextmanager, suppress

from local_server import QuietHandler, up

BODY = bytes(range(256)) * 12_000
"""Three megabytes: several blocks of a transfer."""


class Site:
    """What the server gives, and what it was asked: (path, Range, If-Range, Authorization)."""

    def __init__(self, server):
        self.server = server
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.body = BODY
        self.named = {}
        self.etag = '"v1"'
        self.asked = []

    def ranges(self, path):
        return [entry[1] for entry in self.asked if entry[0] == path]


class Handler(QuietHandler):
    @property
    def site(self):
        return self.server.site

    def do_GET(self):
        site, path = self.site, self.path
        site.asked.append((path, *(self.headers.get(key) for key in ("Range", "If-Range", "Authorization"))))
        getattr(self, "page_" + path.strip("/").partition("/")[0].replace(".", "_").replace("-", "_"), self.absent)()

    def do_HEAD(self):
        site = self.site
        known = self.path in site.named or self.path.startswith(("/good", "/slow"))
        length = len(site.named.get(self.path, site.body)) if known else 0
        self.answer(200 if known else 404, {"Content-Length": str(length)})

    # --- good ones ---

    def page_good(self):
        self.give()

    page_packed_gz = page_file = page_good

    def page_moved(self):
        self.to("/moved_again")

    def page_moved_again(self):
        self.to("/good")

    def page_loop(self):
        self.to("/loop")

    def page_chunked(self):
        self.answer(200, {"Transfer-Encoding": "chunked"})
        for start in range(0, len(self.site.body), 100_000):
            block = self.site.body[start : start + 100_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
        self.wfile.write(b"0\r\n\r\n")

    # --- broken connections ---

    def page_cut(self):
        """Every answer ends after 1.2 MB."""
        self.give(most=1_200_000)

    def page_cut_no_ranges(self):
        """As a server that knows no ranges: cut twice, whole the third time."""
        self.give(most=1_200_000 if self.count() < 3 else None, ranges=False)

    def page_cut_always(self):
        self.give(most=1_200_000, ranges=False)

    def page_cut_no_names(self):
        """Ranges, but neither ETag nor date, so that nobody can say whether the file is the same."""
        self.give(most=1_200_000 if self.count() < 2 else None, etag=None)

    def page_cut_chunked(self):
        self.answer(200, {"Transfer-Encoding": "chunked"})
        self.wfile.write(b"%x\r\n%s\r\n" % (1000, self.site.body[:1000]))
        self.close_connection = True

    def page_changing(self):
        """The file changes after the first break."""
        if self.count() == 2:
            self.site.body, self.site.etag = self.site.body[::-1], '"v2"'
        self.give(most=1_200_000 if self.count() < 2 else None)

    def page_changing_unheeded(self):
        """The same, and If-Range is not understood."""
        if self.count() == 2:
            self.site.body, self.site.etag = self.site.body[::-1], '"v2"'
        self.give(most=1_200_000 if self.count() < 2 else None, heed=False)

    def page_silent(self):
        """Half of the file, then nothing, the first time; the whole rest the second time."""
        if self.count() == 1:
            self.give(most=1_200_000, then=lambda: self.server.released.wait(10))
        else:
            self.give()

    def page_mute(self):
        self.server.released.wait(10)

    def page_trickle(self):
        """A byte now and then, for ever."""
        self.answer(200, {"Content-Length": str(len(self.site.body)), "ETag": self.site.etag})
        for byte in self.site.body:
            self.wfile.write(bytes([byte]))
            if self.server.released.wait(0.02):
                break
        self.close_connection = True

    def page_slow(self):
        """So slow that it can be killed on the way."""
        self.give(pause=0.003)

    # --- lies ---

    def page_too_long(self):
        """Says more than it gives."""
        self.give(said=len(self.site.body) + 1000, ranges=False)

    def page_too_short(self):
        """Says, and gives, less than the file has."""
        self.give(most=len(self.site.body) - 1000, said=len(self.site.body) - 1000)

    def page_empty(self):
        self.answer(200, {"Content-Length": "0"})

    def page_wrong(self):
        self.answer(200, {"Content-Length": str(len(self.site.body)), "ETag": '"wrong"'})
        self.wfile.write(b"x" * len(self.site.body))

    def page_wrong_range(self):
        """Another part than was asked for, the first time."""
        if self.count() == 2:
            self.answer(206, {"Content-Range": f"bytes 0-9/{len(self.site.body)}", "Content-Length": "10"})
            self.wfile.write(self.site.body[:10])
        else:
            self.give(most=1_200_000 if self.count() == 1 else None)

    def page_unasked_part(self):
        self.answer(206, {"Content-Range": f"bytes 0-9/{len(self.site.body)}", "Content-Length": "10"})
        self.wfile.write(self.site.body[:10])

    # --- refusals ---

    def page_gated(self):
        if self.headers.get("Authorization") == "Bearer good-token":
            self.give()
        else:
            self.answer(403, {"Content-Length": "0"})

    def page_gated_elsewhere(self):
        """Gated, and the bytes lie on another host."""
        if self.headers.get("Authorization") == "Bearer good-token":
            self.to(f"http://localhost:{self.server.server_port}/good/elsewhere")
        else:
            self.answer(401, {"Content-Length": "0"})

    def page_busy(self):
        """Twice too many requests, then good."""
        if self.count() < 3:
            self.answer(503, {"Content-Length": "0", "Retry-After": "0"})
        else:
            self.give()

    def page_down(self):
        self.answer(500, {"Content-Length": "0"})

    def absent(self):
        self.answer(404, {"Content-Length": "0"})

    # --- how ---

    def count(self):
        return len(self.site.ranges(self.path))

    def to(self, where):
        self.answer(302, {"Location": where, "Content-Length": "0"})

    def answer(self, status, headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def give(self, most=None, said=None, ranges=True, etag="site", heed=True, then=None, pause=0.0):
        body = self.site.named.get(self.path, self.site.body)
        etag = self.site.etag if etag == "site" else etag
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        start, status = 0, 200
        if asked and ranges and not (heed and condition and condition != etag):
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
        names = {"ETag": etag} if etag else {}
        if start >= len(body):
            self.answer(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"})
            return
        if status == 206:
            names["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        if self.path == "/packed.gz":  # some servers say so of a file that is packed as it lies
            names["Content-Encoding"] = "gzip"
        part = body[start:]
        self.answer(status, {"Content-Length": str(said or len(part)), **names})
        part = part[:most] if most is not None else part
        with suppress(OSError):  # the other side was killed
            for first in range(0, len(part), 16_384):
                self.wfile.write(part[first : first + 16_384])
                time.sleep(pause)
            self.wfile.flush()
        if then:
            then()
        if len(part) != (said or len(body) - start):
            self.close_connection = True


@contextmanager
def serving():
    """Give a site that is up."""
    with up(Handler) as server:
        server.released = threading.Event()
        server.site = Site(server)
        yield server.site
        server.released.set()
