"""Where files are found, and how they are written: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from lnln.data.errors import OutputError, SettingsError

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


def imported(place: str, what: str, known: Iterable[str]) -> Any:
    """What stands in a module, often a reader's own.

    Args:
        place: "my_module:MyClass".
        what: it is to be, such as "method", for messages.
        known: names that are taken without a module.

    Raises:
        SettingsError: it cannot be imported.
    """
    module, colon, attribute = place.partition(":")
    if not colon:
        raise SettingsError(
            f"{what} {place!r} is unknown; choose from {', '.join(known)}, or name a "
            "class of yours as my_module:MyClass"
        )
    if os.getcwd() not in sys.path:
        # Where a reader's own module lies; the installed command does not look there.
        sys.path.append(os.getcwd())
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"{what} {place!r} cannot be imported ({error}); start where {module}.py "
            "lies, or install it"
        ) from error
