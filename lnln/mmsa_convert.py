"""Write any file that can be read as a clean MMSA file, and a record of how."""

from __future__ import annotations

import json
from pathlib import Path

from lnln.data import Dataset, Reading
from lnln.errors import SettingsError
from lnln.mmsa import read_mmsa, write_mmsa
from lnln.paths import atomic_path, sha256_of


def record_path(out: Path) -> Path:
    """Where the record of a converted file stands."""
    return out.with_suffix(".json")


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def convert(path: Path, out: Path, reading: Reading) -> Dataset:
    """Read a file and write it anew.

    Args:
        path: of any layout that `read_mmsa` knows.
        out: the MMSA file to write or replace; its record is `record_path(out)`.
        reading: what is said about the file.

    Returns:
        What was read.

    Raises:
        DataError: the file cannot be read.
        SettingsError: `out` is the file itself or would be its own record.
        OutputError: the folder is not writable.
    """
    record = record_path(out)
    if out.absolute() == path.absolute() or _same(out, path):
        raise SettingsError(f"{out}: is the file itself; name another one to write")
    if record == out:
        raise SettingsError(f"{out}: ends in .json as its record does; end it in .pkl")
    dataset = read_mmsa(path, **reading.to_dict())
    write_mmsa(dataset, out)
    # The first note is on the scheme.
    content = {
        "input": path.name,
        "sha256": dataset.sha256,
        "layout": dataset.layout,
        "scheme": dataset.scheme,
        "scheme_reason": dataset.notes[0],
        "tokenizer": dataset.tokenizer or None,
        "transcripts": reading.transcripts and Path(reading.transcripts).name,
        "valid_share": reading.valid_share,
        "mended": list(dataset.mended),
        "notes": list(dataset.notes[1:]),
        "splits": {name: len(split) for name, split in dataset.splits.items()},
        "output": out.name,
        "output_sha256": sha256_of(out),
    }
    with atomic_path(record) as draft:
        text = json.dumps(content, indent=1, ensure_ascii=False)
        draft.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return dataset
