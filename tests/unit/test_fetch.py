"""A published file is fetched whole and checked, or nothing is left."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stmorph.errors import DataError
from stmorph.fetch import fetch

BODY = bytes(range(256)) * 3000
SHA = hashlib.sha256(BODY).hexdigest()


class Pages(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path not in ("/good", "/cut", "/empty", "/packed.gz"):
            self.send_error(404)
            return
        body = b"" if self.path == "/empty" else BODY
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if self.path == "/packed.gz":  # some servers say so of a file that is packed as it lies
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/cut" else body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def refused(tmp_path, url, sha256=None):
    """Fetch over an older file; return the sentence, having seen that nothing was harmed or left."""
    out = tmp_path / "file.bin"
    for before in (None, b"older"):
        if before is not None:
            out.write_bytes(before)
        with pytest.raises(DataError) as error:
            fetch(out, url, sha256)
        assert [path.name for path in tmp_path.iterdir()] == ([] if before is None else ["file.bin"])
        assert before is None or out.read_bytes() == before
    sentence = str(error.value)
    assert url in sentence and "\n" not in sentence
    return sentence


@pytest.mark.parametrize("page", ["good", "moved"])
@pytest.mark.parametrize("sha256", [None, SHA])
def test_good(server, tmp_path, page, sha256):
    fetch(tmp_path / "deep" / "file.bin", f"{server}/{page}", sha256)
    assert (tmp_path / "deep/file.bin").read_bytes() == BODY
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file.bin"]


def test_a_packed_file_stays_packed(server, tmp_path):
    fetch(tmp_path / "packed.gz", f"{server}/packed.gz", SHA)
    assert (tmp_path / "packed.gz").read_bytes() == BODY


def test_wrong_digest_names_both(server, tmp_path):
    sentence = refused(tmp_path, f"{server}/good", "0" * 64)
    assert SHA in sentence and "0" * 64 in sentence


def test_not_found(server, tmp_path):
    assert "404" in refused(tmp_path, f"{server}/absent")


def test_cut_connection(server, tmp_path):
    assert "could not be fetched" in refused(tmp_path, f"{server}/cut")


def test_empty(server, tmp_path):
    assert "empty file" in refused(tmp_path, f"{server}/empty")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "gopher://example/x", "http://[bad/x"])
def test_no_server(tmp_path, url):
    assert "could not be fetched" in refused(tmp_path, url)
