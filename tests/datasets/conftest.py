"""A data folder per test, small HDF5 files, and a web server on 127.0.0.1 that misbehaves on demand."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from annvq.datasets import download
from annvq.datasets.cards import Card


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "annvq-data"
    monkeypatch.setenv("ANNVQ_DATA", str(folder))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


@pytest.fixture
def write_hdf5(tmp_path: Path) -> Callable[..., Path]:
    """Write datasets and the attribute ``distance`` to a new file."""

    def write(name: str = "toy.hdf5", distance: str | None = "euclidean", **arrays: Any) -> Path:
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            if distance is not None:
                file.attrs["distance"] = distance
            for key, array in arrays.items():
                file[key] = array
        return path

    return write


@pytest.fixture
def vectors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {
        "train": rng.standard_normal((300, 12)).astype(np.float32),
        "test": rng.standard_normal((20, 12)).astype(np.float32),
    }


@pytest.fixture
def hdf5_bytes(write_hdf5: Callable[..., Path], vectors: dict[str, np.ndarray]) -> bytes:
    return write_hdf5("served.hdf5", padding=np.random.default_rng(1).random(50_000), **vectors).read_bytes()


class Site:
    """What the server gives and how it fails; every request is recorded as (path, Range)."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etag: dict[str, str] = {}
        self.last_modified: str | None = "Mon, 01 Jan 2024 00:00:00 GMT"
        self.status: dict[str, list[int]] = {}
        self.cuts: list[int] = []  # break the connection after so many bytes of the body, one request each
        self.on_request: Callable[[str], None] = lambda path: None
        self.heeds_range = True
        self.heeds_if_range = True
        self.sends_length = True
        self.redirects: dict[str, str] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.agents: set[str] = set()
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        site, path = self.site, self.path
        self.close_connection = True
        site.requests.append((path, self.headers.get("Range")))
        site.agents.add(self.headers.get("User-Agent", ""))
        site.on_request(path)
        if site.status.get(path):
            return self._empty(site.status[path].pop(0))
        if path in site.redirects:
            return self._empty(302, Location=site.redirects[path])
        if path not in site.files:
            return self._empty(404)
        return self._body(path, site.files[path])

    def _empty(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": "0", "Connection": "close", **headers}.items():
            self.send_header(key, value)
        self.end_headers()

    def _body(self, path: str, body: bytes) -> None:
        site = self.site
        etag = site.etag.get(path)
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and site.heeds_range:
            condition = self.headers.get("If-Range")
            if not site.heeds_if_range or condition in (etag, site.last_modified):
                start = int(asked[1])
        if start and start >= len(body):
            return self._empty(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if site.sends_length:
            self.send_header("Content-Length", str(len(body) - start))
        if etag:
            self.send_header("ETag", etag)
        if site.last_modified:
            self.send_header("Last-Modified", site.last_modified)
        self.send_header("Connection", "close")
        self.end_headers()
        rest = body[start:]
        self.wfile.write(rest[: site.cuts.pop(0)] if site.cuts else rest)
        return None


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(download, "_LONGEST_WAIT", 0.01)
    monkeypatch.setattr(download, "_CHUNK", 1000)
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def make_card(site: Site) -> Callable[..., Card]:
    """A card of the set ``toy`` whose addresses are paths on the server."""

    def make(*paths: str, **stated: Any) -> Card:
        urls = tuple(site.url + path for path in paths or ("/toy.hdf5",))
        facts = {"metric": "l2", "n": 300, "d": 12, "nq": 20, "licence": "", "citation": "", **stated}
        return Card(name="toy", urls=urls, **facts)

    return make


@pytest.fixture
def sha256() -> Callable[[bytes], str]:
    return lambda data: hashlib.sha256(data).hexdigest()
