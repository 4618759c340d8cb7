"""Downloads, from a server on this machine that misbehaves in every way a mirror may."""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires.data import default_data_dir, load_dataset
from minires.data.cifar import LAYOUTS
from minires.data.download import ARCHIVES, MIRRORS, Archive, download, fetch, mirror_list, unpack
from minires.errors import DataError
from tests.data.synthetic import contents, small

__all__: list[str] = []

BODY = np.random.default_rng(0).bytes(600_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; the folder in the path says how: good, deaf, breaking, wrong, missing."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"archive": BODY}
        self.requests: list[tuple[str, str | None]] = []  # path, Range
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        _, behaviour, name = self.path.split("/")
        if behaviour == "missing":
            self.send_error(404)
            return
        body = self.server.files[name]
        if behaviour == "wrong":
            body = body[::-1]
        start = 0
        if wanted and behaviour != "deaf":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = start + 250_000 if behaviour == "breaking" else len(body)
        self.wfile.write(body[start:end])

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: Any) -> Iterator[Server]:
    """A server that is gone afterwards."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the file should appear."""
    return tmp_path / "archive.tar.gz"


def part(target: Path) -> Path:
    """Where it is collected."""
    return target.with_name(target.name + ".part")


def test_a_file_arrives(server: Server, target: Path) -> None:
    assert fetch([f"{server.url}/good/archive"], target, SHA256, progress=False) == target
    assert target.read_bytes() == BODY
    assert not part(target).exists()
    assert server.requests == [("/good/archive", None)]


def test_progress_goes_to_stderr(server: Server, target: Path, capfd: Any) -> None:
    fetch([f"{server.url}/good/archive"], target, SHA256)
    out, err = capfd.readouterr()
    assert out == ""
    assert "archive.tar.gz" in err
    assert "600k" in err


def test_a_part_is_continued(server: Server, target: Path) -> None:
    part(target).write_bytes(BODY[:1234])
    fetch([f"{server.url}/good/archive"], target, SHA256, progress=False)
    assert target.read_bytes() == BODY
    assert server.requests == [("/good/archive", "bytes=1234-")]


def test_a_server_that_does_not_resume_starts_again(server: Server, target: Path) -> None:
    part(target).write_bytes(BODY[:1234])
    fetch([f"{server.url}/deaf/archive"], target, SHA256, progress=False)
    assert target.read_bytes() == BODY
    assert len(server.requests) == 1


def test_a_broken_connection_is_resumed(server: Server, target: Path) -> None:
    fetch([f"{server.url}/breaking/archive"], target, SHA256, progress=False)
    assert target.read_bytes() == BODY
    assert [r for _, r in server.requests] == [None, "bytes=250000-", "bytes=500000-"]


def test_a_complete_part_needs_no_byte_more(server: Server, target: Path) -> None:
    part(target).write_bytes(BODY)
    fetch([f"{server.url}/good/archive"], target, SHA256, progress=False)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * 700_000])
def test_a_stale_part_is_thrown_away(server: Server, target: Path, stale: bytes) -> None:
    part(target).write_bytes(stale)
    fetch([f"{server.url}/good/archive"], target, SHA256, progress=False)
    assert target.read_bytes() == BODY
    assert server.requests[-1] == ("/good/archive", None)


def test_a_wrong_checksum_is_refused(server: Server, target: Path) -> None:
    wrong = hashlib.sha256(BODY[::-1]).hexdigest()
    with pytest.raises(DataError) as caught:
        fetch([f"{server.url}/wrong/archive"], target, SHA256, progress=False)
    assert f"/wrong/archive: wrong checksum {wrong}, expected {SHA256}" in str(caught.value)
    assert not target.exists()
    assert not part(target).exists()


@pytest.mark.parametrize("first", ["missing", "wrong"])
def test_the_second_mirror_helps_out(first: str, server: Server, target: Path) -> None:
    urls = [f"{server.url}/{kind}/archive" for kind in (first, "good")]
    fetch(urls, target, SHA256, progress=False)
    assert target.read_bytes() == BODY
    assert [path for path, _ in server.requests] == [f"/{first}/archive", "/good/archive"]


def test_the_second_mirror_continues_the_firsts_part(
    server: Server, target: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(importlib.import_module("minires.data.download"), "ATTEMPTS", 1)
    urls = [f"{server.url}/{kind}/archive" for kind in ("breaking", "good")]
    fetch(urls, target, SHA256, progress=False)
    assert target.read_bytes() == BODY
    assert server.requests[-1] == ("/good/archive", "bytes=250000-")


def test_when_all_fail_each_is_named(server: Server, target: Path) -> None:
    urls = [f"{server.url}/missing/archive", "http://127.0.0.1:9/archive"]  # port 9: nobody listens
    with pytest.raises(DataError) as caught:
        fetch(urls, target, SHA256, progress=False)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{target}: no mirror delivered it; {urls[0]}: ")
    assert "Not Found; http://127.0.0.1:9/archive: " in message
    assert "refused" in message


def tar(files: dict[str, bytes], *entries: tarfile.TarInfo) -> bytes:
    """A gzipped tar file."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as out:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            out.addfile(info, io.BytesIO(body))
        for entry in entries:
            out.addfile(entry)
    return raw.getvalue()


def test_unpacking(target: Path) -> None:
    target.write_bytes(tar({"folder/a": b"1", "folder/b": b"22"}))
    (target.parent / "folder").mkdir()
    (target.parent / "folder" / "a").write_bytes(b"old and damaged")
    (target.parent / "folder" / "mine").write_bytes(b"stays")
    unpack(target, target.parent)
    found = {p.name: p.read_bytes() for p in (target.parent / "folder").iterdir()}
    assert found == {"a": b"1", "b": b"22", "mine": b"stays"}
    assert sorted(p.name for p in target.parent.iterdir()) == ["archive.tar.gz", "folder"]


def entry(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    """A member that is no plain file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


BAD = {
    "outside": tar({"../outside": b"x"}),
    "outside through a folder": tar({"folder/../../outside": b"x"}),
    "link to a folder": tar({}, entry("link", tarfile.SYMTYPE, "/etc")),
    "link outside": tar({}, entry("link", tarfile.SYMTYPE, "../outside")),
    "hard link": tar({}, entry("link", tarfile.LNKTYPE, "../outside")),
    "device": tar({}, entry("device", tarfile.CHRTYPE)),
    "cut off": tar({"folder/a": b"1" * 9999})[:60],
    "no tar": b"no tar at all",
    "empty": b"",
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
def test_malicious_and_damaged_archives_leave_nothing(raw: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    target = folder / "archive.tar.gz"
    target.write_bytes(raw)
    with pytest.raises(DataError, match=r"archive.tar.gz: cannot be unpacked: "):
        unpack(target, folder)
    assert [p.name for p in folder.iterdir()] == ["archive.tar.gz"]
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.fixture
def small_archive(server: Server, monkeypatch: Any) -> bytes:
    """An archive of a CIFAR-10 of 20 images a file, as the official one."""
    layout = small(LAYOUTS["cifar10"][0])
    monkeypatch.setitem(LAYOUTS, "cifar10", (layout,))
    files = contents("cifar10", layout).items()
    raw = tar({f"{layout.folder}/{name}": body for name, body in files})
    sha256 = hashlib.sha256(raw).hexdigest()
    monkeypatch.setitem(ARCHIVES, ("cifar10", "python"), Archive("c.tar.gz", sha256, layout.folder))
    server.files["c.tar.gz"] = raw
    return raw


def test_the_whole_way(
    server: Server, small_archive: bytes, tmp_path: Path, monkeypatch: Any
) -> None:
    folder = tmp_path / "new" / "data"
    with pytest.raises(DataError, match=r"get it with --download"):
        load_dataset("cifar10", folder)
    assert server.requests == []  # only when asked for
    monkeypatch.setenv("MINIRES_MIRROR", f"{server.url}/missing {server.url}/good/")
    dataset = load_dataset("cifar10", folder, download=True, progress=False)
    assert len(dataset) == 100
    assert [path for path, _ in server.requests] == ["/missing/c.tar.gz", "/good/c.tar.gz"]
    assert [p.name for p in folder.iterdir()] == ["cifar-10-batches-bin"]
    server.requests.clear()
    load_dataset("cifar10", folder, "test", download=True, progress=False)
    assert server.requests == []  # it is there


def test_the_folder_itself_may_be_named(
    server: Server, small_archive: bytes, tmp_path: Path
) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    dataset = load_dataset(
        "cifar10", folder, "test", download=True, mirrors=f"{server.url}/good", progress=False
    )
    assert len(dataset) == 20
    assert folder.is_dir()


def test_an_archive_that_is_there_is_used(
    server: Server, small_archive: bytes, tmp_path: Path
) -> None:
    (tmp_path / "c.tar.gz").write_bytes(small_archive)
    found = download("cifar10", tmp_path, mirrors=f"{server.url}/missing", progress=False)
    assert found == tmp_path / "cifar-10-batches-bin"
    assert server.requests == []


def test_mirrors(monkeypatch: Any) -> None:
    monkeypatch.delenv("MINIRES_MIRROR", raising=False)
    assert mirror_list() == list(MIRRORS)
    assert mirror_list(["https://a.example"]) == ["https://a.example"]
    monkeypatch.setenv("MINIRES_MIRROR", "https://b.example http://c.example")
    assert mirror_list() == ["https://b.example", "http://c.example"]
    assert mirror_list("https://a.example") == ["https://a.example"]
    with pytest.raises(ValueError, match=r"mirror is 'file:///etc' but must start with https://"):
        mirror_list("file:///etc")


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"download: 'mnist', 'python' is unknown, expected one of: cifar10"
    ):
        download("mnist", tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="a file where a folder should be, POSIX wording")
def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file/data: cannot make this folder: "):
        download("cifar10", tmp_path / "file" / "data")


def test_the_default_folder(monkeypatch: Any) -> None:
    monkeypatch.delenv("MINIRES_DATA", raising=False)
    assert default_data_dir() == Path("data")
    monkeypatch.setenv("MINIRES_DATA", "/elsewhere")
    assert default_data_dir() == Path("/elsewhere")
    with pytest.raises(DataError, match=r"/elsewhere: holds no cifar10"):
        load_dataset("cifar10")
