"""Data by their name: simulated, or a file, as commands and chapters give it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lnln.data.batch import DataError, Dataset, Reading
from lnln.data.errors import SettingsError
from lnln.data.mmsa.reader import read_mmsa
from lnln.data.simulated.corpus import simulate


def open_data(
    spec: str,
    preset: str = "mini",
    train_size: int | None = None,
    seed: int = 0,
    reading: Reading | None = None,
    labelled: bool = True,
) -> Dataset:
    """Open data as the commands name them.

    Args:
        spec: "simulated", "simulated:mini", "simulated:full" or a file's path.
        preset: "simulated" alone means size mini for preset mini, else full.
        train_size, seed: of simulated data.
        reading: what is said about a file; None: nothing.
        labelled: see `read_mmsa`.

    Returns:
        The dataset.

    Raises:
        DataError: the file is missing or faulty.
        SettingsError: train_size is given for a file, or `reading` for simulated data.
    """
    kind, _, size = spec.partition(":")
    reading = reading or Reading()
    if kind == "simulated":
        if reading.scheme or reading.transcripts or reading.valid_share:
            raise SettingsError(
                "--scheme, --transcripts and --valid-share are for files only"
            )
        size = size or ("mini" if preset == "mini" else "full")
        return simulate(size, seed, train_size)
    if train_size is not None:
        raise SettingsError("--train-size is for simulated data only")
    return read_mmsa(spec, **reading.to_dict(), labelled=labelled)


def recorded_reading(provenance: dict[str, Any], spec: str) -> Reading:
    """How a run read its data, for opening the same data again.

    Args:
        provenance: of the run: what `record.json` or a checkpoint says of it.
        spec: what is to be opened.

    Returns:
        What was said then. Of other data than the run's, only the encoder is known.
    """
    data = provenance["data"]
    # Runs of earlier versions say the scheme only, which was decided otherwise.
    reading = Reading(**data.get("reading", {"scheme": data["scheme"]}))
    same = Path(spec).absolute() == Path(data["source"]).absolute()
    return reading if same else Reading(encoder=reading.encoder)


@dataclass(frozen=True)
class Source:
    """Where the data come from, so that every machine can open them itself.

    Attributes:
        spec, preset, train_size, seed, reading: see `open_data`.
        sha256: what they must hash to; empty for anything.
    """

    spec: str
    preset: str = "mini"
    train_size: int | None = None
    seed: int = 0
    sha256: str = ""
    reading: Reading = Reading()


@lru_cache(maxsize=1)
def open_source(source: Source) -> Dataset:
    """Open the data, once per process.

    Raises:
        DataError: they are not the expected ones.
    """
    data = open_data(
        source.spec, source.preset, source.train_size, source.seed, source.reading
    )
    if source.sha256 and data.sha256 != source.sha256:
        raise DataError(
            f"{source.spec}: SHA-256 of the content is {data.sha256}, not "
            f"{source.sha256}; give every machine the same file"
        )
    return data
