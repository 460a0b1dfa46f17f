"""Zip archives from strangers: looked through before anything is unpacked, and unpacked into memory alone."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

from ..errors import FileError

MOST_ENTRIES = 200_000
FREE_SIZE = 64 << 20
"""Bytes that an archive may unpack to whatever its own size is."""
MOST_EXPANSION = 100
"""Beyond these, how many times its own size an archive may unpack to. (Deflate reaches 1,032; real weights hardly 2.)"""


class Archive:
    """The entries of a zip archive by name. A with block. Raises FileError for damage and for what a bomb or a trap would be.

    Refused before anything is read: names that lead out of a folder, names that come twice, entries that overlap or are
    encrypted, other compression than deflate, and more than MOST_EXPANSION times its size. Every entry that is read is held
    to its checksum.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.size = os.path.getsize(path)
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeError, OverflowError) as error:
            raise FileError(f"{path}: damaged, or cut short ({error})") from None
        try:
            self._entries = self._checked(self._zip.infolist())
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def stated(self, name: str) -> int:
        """The size of an entry once unpacked, as the archive states it."""
        return self._entry(name).file_size

    def read(self, name: str) -> bytes:
        """The bytes of an entry: as many as the archive states, and with the checksum it states."""
        info = self._entry(name)
        try:
            with self._zip.open(info) as file:
                content = file.read(info.file_size + 1)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, zlib.error, NotImplementedError, RuntimeError) as error:
            raise FileError(f"{self.path}: damaged at {info.filename[:120]!r} ({error or type(error).__name__})") from None
        if len(content) != info.file_size:
            raise FileError(
                f"{self.path}: damaged at {info.filename[:120]!r}: {info.file_size:,} bytes stated, {len(content):,} there"
            )
        return content

    def _entry(self, name: str) -> zipfile.ZipInfo:
        if name not in self._entries:
            raise FileError(f"{self.path}: damaged: it has no {name[:120]!r}, which it refers to")
        return self._entries[name]

    def _checked(self, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        if len(infos) > MOST_ENTRIES:
            raise FileError(f"{self.path}: {len(infos):,} entries; expected at most {MOST_ENTRIES:,}")
        entries: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            name = info.filename
            steps = name.replace("\\", "/").split("/")
            if not steps[0] or ".." in steps or ":" in name or not name.isprintable():
                raise FileError(f"{self.path}: an entry named {name[:120]!r} would lead out of its folder; nothing was unpacked")
            if name in entries:
                raise FileError(f"{self.path}: two entries are named {name[:120]!r}")
            if info.flag_bits & 1:
                raise FileError(f"{self.path}: {name[:120]!r} is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise FileError(f"{self.path}: {name[:120]!r} is compressed by method {info.compress_type}; expected deflate")
            entries[name] = info
        stated, packed = sum(i.file_size for i in infos), sum(i.compress_size for i in infos)
        if packed > self.size:
            raise FileError(f"{self.path}: its entries overlap: {packed:,} bytes of them in a file of {self.size:,}")
        if stated > max(FREE_SIZE, MOST_EXPANSION * self.size):
            raise FileError(
                f"{self.path}: {self.size:,} bytes would unpack to {stated:,}; expected at most {MOST_EXPANSION} times as many"
            )
        return entries
