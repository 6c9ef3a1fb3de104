"""What a run would do and take, before it is started."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lnln.data.batch import Dataset
from lnln.models import build_model
from lnln.models.encoder import EncoderConfig, architecture_of
from lnln.training.checkpoint import keeping_random_state, selected_checkpoints
from lnln.training.settings import Preset


class Disk(NamedTuple):
    """Bytes that a run takes on disk.

    Attributes:
        training: while it trains: its checkpoints and the state to resume from.
        finished: what is left when it has ended.
    """

    training: int
    finished: int


def parameters_of(preset: Preset) -> tuple[int, int]:
    """Numbers of all and of the trainable parameters, without making any.

    Raises:
        SettingsError: the text encoder is not known on this machine.
    """
    architecture: dict[str, Any] | None = None
    encoder: EncoderConfig = preset.model.encoder
    if encoder.name is not None:
        architecture = architecture_of(encoder.name)
    with keeping_random_state(), torch.device("meta"):
        model = build_model(preset.model, architecture)
    parameters = list(model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return sum(p.numel() for p in parameters), trained


def disk_of(preset: Preset, scheme: str) -> Disk:
    """The bytes of a run: single-precision numbers, some kilobytes of text left out.

    Args:
        preset: its settings, fitted to the data.
        scheme: "mosi" or "sims"; decides how many checkpoints a selection on the test
            split keeps.

    Raises:
        SettingsError: the text encoder is not known on this machine.
    """
    total, trained = parameters_of(preset)
    files = len(set(selected_checkpoints(preset.train.selection, scheme).values()))
    copies = 2 if preset.train.ema else 1  # the moving average is a second model
    kept = 4 * total * (files + copies)
    return Disk(kept + 4 * 2 * trained, kept)


def outline(preset: Preset, dataset: Dataset, folder: Path) -> str:
    """The lines that `lnln train --dry-run` prints.

    Args:
        preset: settings, fitted to the data.
        dataset: what it would train on.
        folder: of the run.
    """
    train = preset.train
    total, trained = parameters_of(preset)
    disk = disk_of(preset, dataset.scheme)
    steps = math.ceil(len(dataset.train) / train.batch_size)
    return "\n".join(
        [
            f"{folder}: {preset.model.method}, seed {train.seed}, on {dataset.source}",
            f"{total:,} parameters, {trained:,} of them trained",
            f"at most {train.epochs} epochs of {steps} steps on {len(dataset.train)} "
            "utterances",
            f"on disk {size(disk.training)} while it trains, then "
            f"{size(disk.finished)}",
        ]
    )


def size(count: int) -> str:
    """Bytes in words, as in "1.9 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
