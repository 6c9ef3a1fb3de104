"""Where a search for settings looks: what all methods share, and each one's own.

Neither the presets nor their distance from anything enter, so that a method that was
tuned before has no head start. A range is the same for all methods, but for weight
decay, which in Adam enters the gradient and in AdamW does not.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from lnln.models import build_model, method_class
from lnln.models.blocks.encoder import architecture_of
from lnln.training.checkpoint import keeping_random_state
from lnln.training.settings import Preset


class Range(NamedTuple):
    """Numbers from `low` to `high`, drawn evenly, or evenly on a log scale."""

    low: float
    high: float
    log: bool = False


#: What a setting may be: a number of a range, or one of a few values.
Choice = Range | tuple[float, ...]
#: {dotted name of a setting: what it may be}; see `with_settings`.
Space = dict[str, Choice]

_DROPOUT = Range(0.0, 0.5)
_WEIGHT = Range(0.05, 5.0, log=True)
#: Own weights and dropout of each method, by the field of its configuration, or of
#: LNLN's loss. What is not here stays as in the preset.
OWN: dict[str, Space] = {
    "misa": {
        "model.dropout": _DROPOUT,
        "model.difference": Range(0.01, 1.0, log=True),
        "model.similarity": Range(0.03, 3.0, log=True),
        "model.reconstruction": Range(0.1, 10.0, log=True),
    },
    # Labels of its own making weigh its losses; audio and vision have their own rates.
    "self_mm": {
        "model.dropouts": _DROPOUT,
        "model.rates.1": Range(0.1, 10.0, log=True),
        "model.rates.2": Range(0.1, 10.0, log=True),
    },
    "mmim": {
        "model.dropout": _DROPOUT,
        "model.fusion_weight": Range(0.01, 1.0, log=True),
        "model.input_weight": Range(0.01, 1.0, log=True),
    },
    "cenet": {"model.dropout": _DROPOUT},
    "tetfn": {
        "model.hidden_dropout": _DROPOUT,
        "model.dropouts": _DROPOUT,
        "model.rates.1": Range(0.1, 10.0, log=True),
        "model.rates.2": Range(0.1, 10.0, log=True),
    },
    "tfr_net": {
        "model.dropout": _DROPOUT,
        "model.hidden_dropout": _DROPOUT,
        "model.reconstruction": Range(0.01, 10.0, log=True),
        "model.similarity": Range(0.5, 50.0, log=True),
    },
    # One loss, and no dropout but the encoder's.
    "almt": {},
    "lnln": {
        "model.dropout": _DROPOUT,
        "loss.alpha": _WEIGHT,
        "loss.beta": _WEIGHT,
        "loss.gamma": Range(0.01, 1.0, log=True),
    },
    "p_rmf": {
        "model.injection_dropout": _DROPOUT,
        "model.head_dropout": _DROPOUT,
        "model.reconstruction": Range(0.01, 1.0, log=True),
        "model.divergence": _WEIGHT,
    },
    "tf_mamba": {"model.dropout": _DROPOUT, "model.reconstruction": _WEIGHT},
}


def space_of(preset: Preset, epochs: int | None = None) -> Space:
    """Where the search for a method's settings looks.

    Args:
        preset: of any method, with its text encoder; a pretrained one is changed more
            carefully, and keeps its own dropout.
        epochs: their number, where it is not searched.

    Returns:
        What all methods share, first, and the method's own.
    """
    pretrained = preset.model.encoder.name is not None
    shared: Space = {
        "train.learning_rate": (
            Range(1e-5, 1e-3, log=True) if pretrained else Range(1e-4, 1e-2, log=True)
        ),
        "train.encoder_rate": (
            Range(0.01, 1.0, log=True) if pretrained else Range(0.1, 3.0, log=True)
        ),
        "train.weight_decay": (
            Range(1e-5, 1e-2, log=True)
            if _coupled(preset)
            else Range(1e-3, 3.0, log=True)
        ),
        "train.batch_size": (16, 32, 64),
        "train.ema": (0.0, 0.95, 0.99),
    }
    if epochs is None:
        shared["train.epochs"] = (25, 50, 100) if pretrained else (20, 30, 40, 60)
    if not pretrained:
        shared["model.encoder.dropout"] = _DROPOUT
    return shared | _own(preset.model.method)


def _own(method: str) -> Space:
    declared = method_class(method).tuned
    return OWN.get(method, {}) | {
        f"model.{field}": Range(*bounds) for field, bounds in declared.items()
    }


def _coupled(preset: Preset) -> bool:
    """Whether weight decay is part of the gradient, without making any weights."""
    name = preset.model.encoder.name
    architecture = None if name is None else architecture_of(name)
    with keeping_random_state(), torch.device("meta"):
        model = build_model(preset.model, architecture)
        return model.recipe(preset.train).coupled
