"""Data and a trained model to look at: what a chapter of the book is about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lnln.data.batch import Batch, DataError, Dataset
from lnln.data.opening import open_data, recorded_reading
from lnln.data.simulated.lexicon import transcripts
from lnln.models.lnln import LNLN
from lnln.sharing.hub import from_pretrained
from lnln.training.checkpoint import (
    CheckpointError,
    TrainedModel,
    load_model,
)
from lnln.training.devices import resolve_device

#: The data that the shipped model was trained for.
STORED = "simulated:mini"


@dataclass(frozen=True)
class Study:
    """Data, and an LNLN that was trained for such data.

    Attributes:
        data: its test split is looked at.
        model: predicts from it.
        stored: data and model are those of the printed book.
    """

    data: Dataset
    model: TrainedModel
    stored: bool

    @property
    def simulated(self) -> bool:
        """Whether the exact posterior is known."""
        return self.data.name == "simulated"

    def claim(self, holds: object, what: str) -> None:
        """Assert a claim of the book; on other data, only print whether it holds.

        Args:
            holds: the claim's truth value.
            what: the claim in words.

        Raises:
            AssertionError: a claim of the printed book does not hold.
        """
        if self.stored:
            assert holds, what
        else:
            print(f"{'holds here' if holds else 'DOES NOT hold here'}: {what}")

    def texts(self, batch: Batch) -> tuple[str, ...]:
        """The words of (corrupted) utterances.

        From the vocabulary of the simulated corpus, or from `vocab.txt` in the text
        encoder's folder; without either, a word is its id, as in "#2143".
        """
        if self.simulated:
            return transcripts(batch)
        folder = self.model.preset.model.encoder.name
        file = None if folder is None else Path(folder) / "vocab.txt"
        if file is not None and file.is_file():
            vocab = np.array(file.read_text("utf-8").splitlines())
        else:
            size = self.model.preset.model.encoder.vocab_size
            # As objects: an array of short texts would cut [UNK] to their length.
            vocab = np.array([f"#{i}" for i in range(size)], dtype=object)
            vocab[batch.special.unk] = "[UNK]"
        rows = vocab[batch.tokens.cpu().numpy()]
        lengths = batch.token_lengths.tolist()
        return tuple(
            " ".join(row[1 : n - 1]) for row, n in zip(rows, lengths, strict=True)
        )


def open_study(
    source: str = STORED, run: str | Path | None = None, device: str = "cpu"
) -> Study:
    """Open what a chapter's parameters name.

    Args:
        source: "simulated:mini", "simulated:full" or the path of an MMSA file.
        run: folder of an LNLN trained on such data by `lnln train`; None for the
            shipped model, which fits "simulated:mini" only.
        device: where the model computes; see `resolve_device`.

    Returns:
        `Study`.

    Raises:
        CheckpointError: the run is missing, or the shipped model does not fit.
        DataError: the file is faulty, or the run was trained for other sizes.
        SettingsError: this machine has no such device.
    """
    where = resolve_device(device)
    if run is None:
        data = open_data(source)
        if source != STORED:
            raise CheckpointError(
                f"the shipped model fits {STORED} only; train one (lnln train --data "
                f"{source} --out runs/mine) and give its folder as `run`"
            )
        return Study(data, from_pretrained(device=where), stored=True)
    model = load_model(Path(run) / "model.safetensors", where)
    reading = recorded_reading(model.provenance, source)
    data = open_data(source, reading=reading)
    if not isinstance(model.model, LNLN):
        raise CheckpointError(f"{run}: the chapters look into LNLN, not other methods")
    fitted = model.preset.fit_to(data).model
    if fitted != model.preset.model:
        raise DataError(f"{source}: {run} was trained for data of other sizes")
    print(
        f"Data: {data.source}. Model: {run}. Prose, captions and claims of the chapter "
        "are about the simulated corpus."
    )
    return Study(data, model, stored=False)
