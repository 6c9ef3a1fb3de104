"""What several compared methods share. B batch, T_m length, d_m feature width."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from lnln.models.config import PRESETS, ModelConfig, Preset, TrainConfig
from lnln.models.encoder import TextEncoder
from lnln.models.method import Method

#: A method's configuration and training settings for one data set.
Setting = tuple[ModelConfig, TrainConfig]


@dataclass(frozen=True)
class Prediction:
    """What a compared method's forward pass gives.

    Attributes:
        sentiment: (B,) prediction y-hat.
        extras: features and further predictions, by name, for the loss and plots.
    """

    sentiment: Tensor
    extras: dict[str, Any]


class BaselineMethod(Method):
    """A compared method: a text encoder first, the rest in the subclass.

    Args:
        config: sizes and settings of the method.
        architecture: see `TextEncoder`; for loading checkpoints.
    """

    def __init__(
        self, config: ModelConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.text_encoder = TextEncoder(
            config.encoder, config.text_length, architecture
        )

    def beyond_encoder(self) -> int:
        """Number of parameters outside of the text encoder."""
        inside = sum(p.numel() for p in self.text_encoder.parameters())
        return sum(p.numel() for p in self.parameters()) - inside


class LastState(nn.Module):
    """The last hidden state of a one-layer LSTM over the real frames.

    Args:
        input_width, width: d_m and the width of the state.
    """

    def __init__(self, input_width: int, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_width, width, batch_first=True)

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """(B, T_m, d_m) and (B,) lengths to (B, width)."""
        _, (state, _) = self.lstm(packed(sequence, lengths))
        last: Tensor = state[-1]
        return last


def packed(sequence: Tensor, lengths: Tensor) -> Any:
    """A packed sequence; lengths are held within 1 and T_m."""
    return pack_padded_sequence(
        sequence,
        lengths.clamp(1, sequence.shape[1]).cpu(),
        batch_first=True,
        enforce_sorted=False,
    )


def split_by_decay(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """A text encoder's weights, and its biases and LayerNorms, which do not decay."""
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            exempt = name.endswith("bias") or "LayerNorm" in name
            (plain if exempt else decayed).append(parameter)
    return decayed, plain


def settings(
    config: ModelConfig,
    train: TrainConfig,
    changes: dict[str, tuple[dict[str, Any], dict[str, Any]]],
) -> dict[str, Setting]:
    """A method's settings for all data sets, from those for MOSI and what differs.

    Args:
        config, train: for MOSI.
        changes: {data set: (fields of the configuration, fields of the training)}.

    Returns:
        {data set: (configuration with that data set's sizes and encoder, training)}.
    """
    found: dict[str, Setting] = {}
    for name, preset in PRESETS.items():
        own, training = changes.get(name, ({}, {}))
        sizes = {
            field: getattr(preset.model, field)
            for field in ModelConfig.__dataclass_fields__
            if field != "method"
        }
        found[name] = (replace(config, **sizes, **own), replace(train, **training))
    return found


def preset_of(name: str, setting: Setting) -> Preset:
    """A method's setting in the form that the trainer takes."""
    model, train = setting
    return Preset(f"{name}-{model.method}", model, PRESETS[name].loss, train)


def masked_mean(features: Tensor, mask: Tensor) -> Tensor:
    """(B, T, d) and (B, T) bool to (B, d), the mean over real positions."""
    weight = mask[..., None].to(features.dtype)
    return (features * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def cmd(x: Tensor, y: Tensor, moments: int) -> Tensor:
    """Central moment discrepancy of two batches of codes in (0, 1).

    Args:
        x, y: (B, d).
        moments: K; distances of the means and of the central moments 2 to K.

    Returns:
        Scalar, at least 0. The square roots have 1e-12 under them: without it the
        gradient of two equal moments is NaN, which empty modalities bring about.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return ((a - b).pow(2).sum() + 1e-12).sqrt()

    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    total = distance(mean_x, mean_y)
    for k in range(2, moments + 1):
        a, b = ((z - z.mean(dim=0)).pow(k).mean(dim=0) for z in (x, y))
        total = total + distance(a, b)
    return total
