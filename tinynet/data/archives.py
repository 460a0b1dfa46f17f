"""Fetch an archive once, checked, and unpack it safely; nothing partial is ever left under a good name."""

import os
import shutil
import stat
import sys
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import FileError


@dataclass(frozen=True)
class Archive:
    """A file on a server: its address, its MD5, its size in megabytes, and the name it is kept under."""

    url: str
    md5: str
    megabytes: int
    name: str


def fetch(archive: Archive, folder: Path, progress: bool = True) -> Path:
    """The path of the archive in `folder`, downloaded unless it is there with the right checksum.

    progress: show a bar if the error stream is a terminal.
    Raises FileError, saying what to do, if the server refuses, the connection breaks, the checksum differs or the disk is full.
    """
    import pooch

    path = folder / archive.name
    by_hand = f"try again, or fetch the file ({archive.megabytes} MB) by hand and put it at {path}"
    responses: list[Any] = []                          # held to be closed: pooch leaves a broken connection open
    try:
        folder.mkdir(parents=True, exist_ok=True)
        downloader = pooch.HTTPDownloader(progressbar=progress and sys.stderr.isatty(), timeout=60,
                                          hooks={"response": lambda response, **_: responses.append(response)})
        pooch.retrieve(archive.url, f"md5:{archive.md5}", fname=archive.name, path=folder, downloader=downloader)
    except OSError as error:                           # what `requests` raises is an OSError too
        response = getattr(error, "response", None)
        if response is not None:
            raise FileError(f"{archive.url}: the server says {response.status_code} {response.reason}; {by_hand}") from error
        if error.errno is not None and error.strerror:
            raise FileError(f"{path}: cannot be written ({error.strerror})") from error
        raise FileError(f"{archive.url}: no connection, or it broke off ({type(error).__name__}); {by_hand}") from error
    except ValueError as error:                        # pooch's word for a wrong checksum
        raise FileError(f"{archive.url}: what came is not the expected file (its MD5 is not {archive.md5}); {by_hand}") from error
    finally:
        for response in responses:
            response.close()
    return path


def unpack(path: Path, folder: Path) -> Path:
    """Unpack a .zip or .tar.gz into `folder`, which is complete if it exists. Returns it.

    Members that would land outside (absolute, "..", links that lead out) are refused. Raises FileError; then nothing is left.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        if zipfile.is_zipfile(path):
            _unzip(path, part)
        else:
            _untar(path, part)
        os.replace(part, folder)                       # from here on it is whole
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        raise FileError(f"{path}: cannot be unpacked ({' '.join(str(error).split())}); remove it and try again") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _untar(path: Path, folder: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise FileError(f"{path}: unpacking safely needs Python 3.11.4 or newer")
    with tarfile.open(path) as tar:
        tar.extractall(folder, filter="data")


def _unzip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = PurePosixPath(member.filename.replace("\\", "/"))
            link = stat.S_ISLNK(member.external_attr >> 16)
            if name.is_absolute() or ".." in name.parts or ":" in name.parts[0] or link:
                raise FileError(f"{path}: refused, its member {member.filename!r} would lead out of the folder")
        archive.extractall(folder)
