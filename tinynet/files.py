"""Writing a file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import FileError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside `path`, to be written in the with block; it takes the place of `path` when the block ends.

    Whoever looks at `path` finds the old contents or the new ones, also after a crash: the new ones are on the disk
    before they get the name. If anything fails (a full disk, Ctrl-C) the old file stays and the temporary one goes.
    Raises FileError for what the operating system refuses.
    """
    path = Path(path)
    # The ending stays last, for writers that go by it; in the same folder, since a rename cannot cross file systems.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the user's umask has it; some writers would leave a file for its owner alone
        yield temporary
        os.chmod(temporary, mode)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise FileError(f"{path}: cannot be written ({reason}); what was there before is unchanged") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Put the text (UTF-8) at path, whole or not at all. Raises FileError."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def make_folder(path: str | os.PathLike[str]) -> Path:
    """The folder at path, made if it is not there. Raises FileError."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be made a folder ({error.strerror or error})") from None
    return Path(path)


def _sync_folder(folder: Path) -> None:
    """Put the new name itself on the disk, where the system can do that for a folder (Windows cannot)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
