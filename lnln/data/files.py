"""Where files are found, and how they are written: whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lnln.data.errors import OutputError

_PACKAGE = Path(__file__).parents[1]


def data_dir() -> Path:
    """The folder of shipped data: inside an installed wheel, else the checkout's."""
    packaged = _PACKAGE / "_data"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "data"


def local_dir() -> Path:
    """The folder for real data: the checkout's `data/local`, else that of the caller.

    It is never shipped, and need not exist.
    """
    packaged = (_PACKAGE / "_data").is_dir()
    return (Path.cwd() if packaged else _PACKAGE.parent) / "data" / "local"


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file as hexadecimal, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` once the block succeeds.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    # One fixed name, so that what a killed run leaves behind is overwritten.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error}); check the folder, its permissions "
            "and the space that is left"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
