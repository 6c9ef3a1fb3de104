"""Is this machine ready for the book? `lnln doctor` prints one line per need.

Nothing is downloaded: the check only looks at what is there.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from lnln.cli import Subparsers
from lnln.data.files import data_dir, local_dir

ENCODER_FILES = ("config.json", "model.safetensors")


class Line(NamedTuple):
    """One need: whether it is met, what it is, and how it stands.

    `ok` is None for something that is not there and not needed.
    """

    ok: bool | None
    name: str
    state: str

    def __str__(self) -> str:
        mark = {True: "OK  ", False: "FAIL", None: "--  "}[self.ok]
        return f"{mark} {self.name}: {self.state}"


def add_doctor(commands: Subparsers) -> None:
    """Add the command to the others."""
    parser = commands.add_parser(
        "doctor", help="check this installation, one OK or FAIL line per requirement"
    )
    parser.add_argument(
        "--encoder", help="also check a text encoder: a hub name or a local folder"
    )
    parser.set_defaults(run=_doctor)


def check_packages(distribution: str = "lnln") -> Iterator[Line]:
    """Compare Python and the installed packages with what a distribution asks for.

    Args:
        distribution: name of an installed distribution.

    Yields:
        One line for Python and one a package. A package that only an extra asks for
        may be absent, but not have a wrong version.
    """
    try:
        facts = metadata.metadata(distribution)
    except metadata.PackageNotFoundError:
        yield Line(False, distribution, "not installed; run `make setup`")
        return
    needed = facts["Requires-Python"]
    python = platform.python_version()
    yield Line(python in SpecifierSet(needed), "python", f"{python} ({needed})")
    for text in metadata.requires(distribution) or ():
        yield check_package(Requirement(text))


def check_package(requirement: Requirement) -> Line:
    """Compare one installed package with its requirement.

    Args:
        requirement: as in the `Requires-Dist` of a distribution.
    """
    optional = requirement.marker is not None and not requirement.marker.evaluate()
    wanted = f"({requirement.specifier})" if requirement.specifier else "(any version)"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        if optional:
            return Line(None, requirement.name, "not installed; lnln works without it")
        return Line(False, requirement.name, f"not installed {wanted}")
    fits = requirement.specifier.contains(version, prereleases=True)
    return Line(fits, requirement.name, f"{version} {wanted}")


def check_device() -> Line:
    """Name the device that training would use; a missing GPU is no fault."""
    if torch.cuda.is_available():
        return Line(True, "device", f"cuda ({torch.cuda.get_device_name()})")
    return Line(
        True,
        "device",
        "cpu (no GPU: the mini preset runs; the paper's full experiment needs one)",
    )


def check_encoder(name: str | None = None) -> Line:
    """Look for a pretrained text encoder, without the network.

    Args:
        name: a folder, the name of a model in the local Hugging Face cache, or None
            for the encoder that is built from scratch.
    """
    if name is None:
        return Line(True, "encoder", "built from a BertConfig, no download")
    folder = Path(name).expanduser()
    if folder.is_dir() or name.startswith(("/", ".", "~")):
        missing = [file for file in ENCODER_FILES if not (folder / file).is_file()]
    else:
        missing = _missing_from_cache(name)
    if missing:
        return Line(False, "encoder", f"{name} lacks {' and '.join(missing)}")
    return Line(True, "encoder", name)


def _missing_from_cache(name: str) -> list[str]:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        # The answer is a path, None, or an object that says the file does not exist.
        return [
            file
            for file in ENCODER_FILES
            if not isinstance(try_to_load_from_cache(name, file), str)
        ]
    except HFValidationError:
        return ["a valid name"]


def check_data() -> Iterator[Line]:
    """Look for the shipped data, and for real data that the reader has added."""
    for name in ("corpus", "mini"):
        folder = data_dir() / name
        files = _count_files(folder)
        yield Line(files > 0, f"data/{name}", f"{files or 'no'} files in {folder}")
    files = _count_files(local_dir())
    if files:
        yield Line(True, "data/local", f"{files} files in {local_dir()}")
    else:
        yield Line(None, "data/local", "no real data; the simulated corpus is used")


def _count_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*")) if folder.is_dir() else 0


def _doctor(options: argparse.Namespace) -> int:
    needs = [*check_packages(), check_device(), check_encoder(options.encoder)]
    lines = [*needs, *check_data()]
    print(*lines, sep="\n")
    return int(any(line.ok is False for line in lines))
