"""MISA: what modalities share, and what only one of them has.

Hazarika et al., ACM Multimedia 2020. Follows MMSA's program where results rest on it:
audio and vision are read up to the length of the *text*, as for aligned data, and the
gradients of two batches make a step. The square roots in the similarity term have a
small constant under them, without which empty modalities make the loss NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils.rnn import pad_packed_sequence

from lnln.data.batch import MODALITIES, Batch
from lnln.models.blocks.answers import task_loss
from lnln.models.blocks.layers import packed
from lnln.models.method import (
    Method,
    ModelConfig,
    Optimisation,
    Prediction,
    Recipe,
    Step,
)

MOMENTS = 5


@dataclass(frozen=True)
class MISAConfig(ModelConfig):
    """Sizes and weights of MISA (values for MOSI).

    Attributes:
        width: d of the codes.
        ffn_width: hidden width of the attention layer.
        dropout: of the head.
        difference, similarity, reconstruction: weights of these terms.
        clip_value, accumulate: see `Recipe`.
    """

    method: ClassVar[str] = "misa"
    width: int = 128
    ffn_width: int = 2048
    dropout: float = 0.2
    difference: float = 0.1
    similarity: float = 0.3
    reconstruction: float = 1.0
    clip_value: float = 0.8
    accumulate: int = 2


class TwoLayerLSTM(nn.Module):
    """Two bidirectional LSTMs with a LayerNorm between; their four last states.

    Args:
        width: d_m, of the frames and of each state.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * width)
        self.second = nn.LSTM(2 * width, width, batch_first=True, bidirectional=True)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, d_m) frames and (B,) lengths to (B, 4 d_m)."""
        states, (last, _) = self.first(packed(frames, lengths))
        states, _ = pad_packed_sequence(states, batch_first=True)
        _, (later, _) = self.second(packed(self.norm(states), lengths))
        return torch.cat([last[0], later[0], last[1], later[1]], dim=-1)


class MISA(Method):
    """The network.

    Args:
        config: sizes and weights.
        architecture: see `TextEncoder`; for loading checkpoints.
    """

    config: MISAConfig
    config_type = MISAConfig
    last = "head.3"

    def __init__(
        self, config: MISAConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__(config, architecture)
        d = config.width
        self.read_audio = TwoLayerLSTM(config.audio_width)
        self.read_vision = TwoLayerLSTM(config.vision_width)
        widths = {
            "l": self.text_encoder.width,
            "a": 4 * config.audio_width,
            "v": 4 * config.vision_width,
        }
        self.project = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Linear(widths[m], d), nn.ReLU(), nn.LayerNorm(d))
                for m in MODALITIES
            }
        )
        self.private = nn.ModuleDict({m: _code(d) for m in MODALITIES})
        self.shared = _code(d)
        self.reconstruct = nn.ModuleDict({m: nn.Linear(d, d) for m in MODALITIES})
        self.attention = nn.TransformerEncoderLayer(
            d, 2, config.ffn_width, dropout=0.1, batch_first=True
        )
        self.head = nn.Sequential(
            nn.Linear(6 * d, 3 * d),
            nn.Dropout(config.dropout),
            nn.ReLU(),
            nn.Linear(3 * d, 1),
        )

    def trim(self, batch: Batch) -> Batch:
        """Cut padding; frames stay as long as any text, whose length is used."""
        longest = int(batch.token_lengths.max())
        cut = batch.trim()
        sizes = (max(x.shape[1], longest) for x in (cut.audio, cut.vision))
        return cut.pad(cut.tokens.shape[1], *sizes)

    def forward(self, batch: Batch) -> Prediction:
        """Predict from (corrupted) utterances, trimmed by `trim`."""
        n = batch.token_lengths
        text = self.text_encoder(batch.tokens, n)
        vectors = {
            "l": masked_mean(text, batch.mask("l")),
            "a": self.read_audio(batch.audio, n),
            "v": self.read_vision(batch.vision, n),
        }
        u = {m: self.project[m](x) for m, x in vectors.items()}
        p = {m: self.private[m](x) for m, x in u.items()}
        s = {m: self.shared(x) for m, x in u.items()}
        order = ("l", "v", "a")
        six = torch.stack([p[m] for m in order] + [s[m] for m in order], dim=1)
        answer = self.head(self.attention(six).flatten(1)).squeeze(-1)
        again = {m: self.reconstruct[m](p[m] + s[m]) for m in MODALITIES}
        extras = {"vectors": u, "private": p, "shared": s, "reconstructed": again}
        return Prediction(answer, extras)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Task, difference, similarity and reconstruction terms."""
        output, c = step.forward(step.erased.batch), self.config
        u, p, s, again = (
            output.extras[name]
            for name in ("vectors", "private", "shared", "reconstructed")
        )
        terms = {
            "sentiment": task_loss(output.answer, step.labels, mse_loss),
            "difference": sum(
                (difference(p[m], s[m]) for m in MODALITIES), torch.zeros(())
            )
            + difference(p["a"], p["l"])
            + difference(p["a"], p["v"])
            + difference(p["l"], p["v"]),
            "similarity": (
                cmd(s["l"], s["v"], MOMENTS)
                + cmd(s["l"], s["a"], MOMENTS)
                + cmd(s["a"], s["v"], MOMENTS)
            )
            / 3,
            "reconstruction": torch.stack(
                [mse_loss(again[m], u[m]) for m in MODALITIES]
            ).mean(),
        }
        terms["total"] = (
            terms["sentiment"]
            + c.difference * terms["difference"]
            + c.similarity * terms["similarity"]
            + c.reconstruction * terms["reconstruction"]
        )
        return terms

    def recipe(self, train: Optimisation) -> Recipe:
        """One Adam group at a constant rate, gradients of two batches summed."""
        return Recipe(
            [
                {
                    "params": [p for p in self.parameters() if p.requires_grad],
                    "lr": train.learning_rate,
                    "weight_decay": train.weight_decay,
                }
            ],
            coupled=True,
            clip_value=self.config.clip_value,
            accumulate=self.config.accumulate,
        )


def _code(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.Sigmoid())


def difference(x: Tensor, y: Tensor) -> Tensor:
    """How far two batches of codes are from orthogonal.

    Args:
        x, y: (B, d).

    Returns:
        Mean over the (d, d) entries of (X^T Y)^2, columns centred over the batch and
        rows divided by their norm, through which no gradient flows.
    """

    def normalised(z: Tensor) -> Tensor:
        z = z - z.mean(dim=0)
        return z / (z.norm(dim=1, keepdim=True).detach() + 1e-6)

    return (normalised(x).T @ normalised(y)).pow(2).mean()


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
