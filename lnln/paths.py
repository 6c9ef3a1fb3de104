"""Where the files that ship with the book, and the reader's own, are found."""

from __future__ import annotations

import hashlib
from pathlib import Path

_PACKAGE = Path(__file__).parent


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
