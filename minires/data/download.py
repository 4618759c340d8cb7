"""Fetching the CIFAR archives: only when asked for, resumed where it broke off, checked at the end.

Mirrors are tried in turn. What one of them delivered stays in a `.part` file, so the next one, or
the next run, continues there; the checksum of the whole decides in the end.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError

__all__ = ["ARCHIVES", "MIRRORS", "Archive", "download", "fetch", "mirror_list", "unpack"]

ATTEMPTS = 3  # on each mirror
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 18  # bytes read at a time


@dataclass(frozen=True)
class Archive:
    """One official archive: the name of its file, its SHA-256, and the folder inside."""

    file: str
    sha256: str
    folder: str


ARCHIVES = {
    ("cifar10", "python"): Archive(
        "cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        "cifar-10-batches-py",
    ),
    ("cifar10", "binary"): Archive(
        "cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        "cifar-10-batches-bin",
    ),
    ("cifar100", "python"): Archive(
        "cifar-100-python.tar.gz",
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        "cifar-100-python",
    ),
    ("cifar100", "binary"): Archive(
        "cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        "cifar-100-binary",
    ),
}

# The first is the official server; the second holds the Python archives only.
MIRRORS = ("https://www.cs.toronto.edu/~kriz", "https://dataset.bj.bcebos.com/cifar")


def download(
    name: str,
    data_dir: str | os.PathLike[str],
    *,
    layout: str = "python",
    mirrors: str | Sequence[str] | None = None,
    progress: bool = True,
) -> Path:
    """Fetch, check and unpack one data set below `data_dir`; returns its folder.

    `mirrors` are the addresses of folders that hold the archive, tried in order; by default those
    in the environment variable MINIRES_MIRROR (separated by spaces), else `MIRRORS`. An archive
    that already lies in `data_dir` is used if its checksum is right. Raises DataError when no
    mirror delivers, ValueError for an unknown name or layout.
    """
    if (name, layout) not in ARCHIVES:
        known = ", ".join(" ".join(key) for key in ARCHIVES)
        raise ValueError(f"download: {name!r}, {layout!r} is unknown, expected one of: {known}")
    archive, folder = ARCHIVES[name, layout], Path(data_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot make this folder: {_reason(error)}") from None
    target = folder / archive.file
    if not (target.is_file() and _sha256(target) == archive.sha256):
        urls = [f"{mirror.rstrip('/')}/{archive.file}" for mirror in mirror_list(mirrors)]
        fetch(urls, target, archive.sha256, progress=progress)
    unpack(target, folder)
    target.unlink()
    return folder / archive.folder


def mirror_list(mirrors: str | Sequence[str] | None = None) -> list[str]:
    """The mirrors to try: those given, else those of MINIRES_MIRROR, else the built-in ones.

    >>> mirror_list("https://one.example/data http://two.example")
    ['https://one.example/data', 'http://two.example']
    """
    chosen = mirrors or os.environ.get("MINIRES_MIRROR", "") or MIRRORS
    chosen = chosen.split() if isinstance(chosen, str) else list(chosen)
    for mirror in chosen:
        if not mirror.startswith(("http://", "https://")):
            raise ValueError(
                f"download: mirror is {mirror!r} but must start with https:// or http://"
            )
    return chosen


def fetch(urls: Sequence[str], target: Path, sha256: str, *, progress: bool = True) -> Path:
    """Get a file from the first address that delivers these very bytes; resumes `target`.part.

    Raises DataError, naming every address and its failure. `target` appears only once it is
    complete and checked.
    """
    part, failures = target.with_name(target.name + ".part"), []
    for url in urls:
        for attempt in range(ATTEMPTS):
            try:
                resumed = _transfer(url, part, progress)
            except (OSError, http.client.HTTPException, ValueError) as error:
                failure = _reason(error)
                if isinstance(error, urllib.error.HTTPError) or attempt == ATTEMPTS - 1:
                    break  # the server said no; or enough is enough
                continue
            found = _sha256(part)
            if found == sha256:
                part.replace(target)
                return target
            part.unlink()
            failure = f"wrong checksum {found}, expected {sha256}"
            if not resumed:
                break  # once more only if old bytes may be to blame
        failures.append(f"{url}: {failure}")
    raise DataError(f"{target}: no mirror delivered it; {'; '.join(failures)}")


def _transfer(url: str, part: Path, progress: bool) -> bool:
    """Append to `part` what it lacks of `url`; whether it held something before."""
    from tqdm import tqdm  # here: nobody pays for its import who does not download

    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "minires"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # no such range: nothing is left to get
            return True
        raise
    with response:
        begins = f"bytes {have}-"
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(
            begins
        ):
            have = 0  # this server does not resume
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(
            desc=part.stem, total=total, initial=have, unit="B", unit_scale=True,
            file=sys.stderr, disable=not progress,
        )  # fmt: skip
        with bar, part.open("ab" if have else "wb") as file:
            while data := response.read(CHUNK):
                bar.update(file.write(data))
        if total is not None and part.stat().st_size < total:
            raise ConnectionError(f"broke off after {part.stat().st_size:,} of {total:,} bytes")
    return have > 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "reason", None) or error).split()) or type(error).__name__


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar file into `folder`; refuse entries and links that lead outside it, and devices.

    Files appear complete or not at all. Raises DataError for a damaged or malicious archive.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DataError(f"{archive}: unpacking needs Python 3.11.4 or newer; or unpack it by hand")
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as staging:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(staging, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"{archive}: cannot be unpacked: {_reason(error)}") from None
        for path in Path(staging).rglob("*"):
            if path.is_file():
                target = folder / path.relative_to(staging)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
