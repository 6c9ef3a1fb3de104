"""MMIM: mutual information, raised between modalities and up to the fusion.

Han, Chen and Poria, EMNLP 2021. Each epoch has two stages: the first trains the
predictors of one modality's vector from another's, the second everything else. Follows
MMSA's program where results rest on it: the predictors' score lacks the normaliser of
a Gaussian, the entropy's projection is never trained, and the denominator of InfoNCE
runs over fused vectors. Where it would fail it is guarded: a covariance gets 1e-6 on
its diagonal and needs 5 rows. Halving the rate after 20 epochs without progress is
left out, since training stops after 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, normalize

from lnln.data.batch import Batch
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

ENTROPY_WIDTH = 4


@dataclass(frozen=True)
class MMIMConfig(ModelConfig):
    """Sizes and weights of MMIM (the same for all data sets).

    Attributes:
        state: width of the LSTMs per direction, and of the vectors behind them.
        width: of the fused vector z.
        dropout: of the fusion.
        fusion_weight, input_weight: alpha, of InfoNCE; beta, of the bounds.
        encoder_rate: the encoder's learning rate as a share of the others'.
        first_share: share of the batches that the first stage uses.
        clip_norm: largest norm of all gradients.
    """

    method: ClassVar[str] = "mmim"
    state: int = 16
    width: int = 128
    dropout: float = 0.1
    fusion_weight: float = 0.1
    input_weight: float = 0.1
    encoder_rate: float = 0.05
    first_share: float = 1.0
    clip_norm: float = 1.0


class Reader(nn.Module):
    """A bidirectional LSTM over the real frames, and a linear map."""

    def __init__(self, input_width: int, state: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_width, state, batch_first=True, bidirectional=True)
        self.project = nn.Linear(2 * state, state)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(B, T_m, d_m) and (B,) lengths to (B, state)."""
        _, (last, _) = self.lstm(packed(frames, lengths))
        vector: Tensor = self.project(torch.cat([last[0], last[1]], dim=-1))
        return vector


class Estimator(nn.Module):
    """A bound on the mutual information of text with another modality.

    Args:
        text_width, width: of the two vectors.
    """

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.mean, self.log_variance = (
            nn.Sequential(
                nn.Linear(text_width, width), nn.ReLU(), nn.Linear(width, width)
            )
            for _ in range(2)
        )
        self.entropy = nn.Sequential(nn.Linear(width, ENTROPY_WIDTH), nn.Tanh())
        self.entropy.requires_grad_(False)

    def score(self, text: Tensor, other: Tensor) -> Tensor:
        """Mean over the batch of how well text predicts the other vector (<= 0)."""
        miss = (self.mean(text) - other).pow(2)
        return -(miss / (2 * self.log_variance(text).exp())).sum(dim=-1).mean()

    def rows(self, other: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Projections of the utterances with positive, and with negative, labels."""
        projected = self.entropy(other)
        return projected[labels > 0], projected[labels < 0]


def log_determinant(rows: Tensor) -> Tensor:
    """Log determinant of the covariance of (N, 4) rows; 0 for fewer than 5 rows."""
    if len(rows) <= ENTROPY_WIDTH:
        return rows.new_zeros(())
    centred = rows - rows.mean(dim=0)
    covariance = centred.T @ centred / len(rows)
    return torch.logdet(covariance + 1e-6 * torch.eye(ENTROPY_WIDTH).to(rows))


def info_nce(vectors: Tensor, predicted: Tensor) -> Tensor:
    """-mean_b [x_b g_b - log sum_c exp(x_b g_c)] of unit vectors, (B, d) each."""
    scores = normalize(vectors, dim=1, eps=1e-12) @ normalize(
        predicted, dim=1, eps=1e-12
    ).transpose(0, 1)
    return -(scores.diagonal() - scores.logsumexp(dim=1)).mean()


class MMIM(Method):
    """The network.

    Args:
        config: sizes and weights.
        architecture: see `TextEncoder`; for loading checkpoints.
    """

    config: MMIMConfig
    config_type = MMIMConfig

    def __init__(
        self, config: MMIMConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__(config, architecture)
        text, state, d = self.text_encoder.width, config.state, config.width
        self.read = nn.ModuleDict(
            {
                "a": Reader(config.audio_width, state),
                "v": Reader(config.vision_width, state),
            }
        )
        self.fuse = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(text + 2 * state, d),
            nn.Tanh(),
            nn.Linear(d, d),
            nn.Tanh(),
        )
        self.head = nn.Linear(d, 1)
        widths = {"l": text, "a": state, "v": state}
        self.predict = nn.ModuleDict({m: nn.Linear(d, w) for m, w in widths.items()})
        self.estimators: Any = nn.ModuleDict({m: Estimator(text, state) for m in "va"})
        for name, parameter in self.named_parameters():
            if not name.startswith("text_encoder") and parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        self._rows: dict[str, tuple[Tensor, Tensor]] = {}

    def forward(self, batch: Batch) -> Prediction:
        """Predict from (corrupted) utterances."""
        text = self.text_encoder(batch.tokens, batch.token_lengths)[:, 0]
        x = {"l": text}
        for m in ("a", "v"):
            x[m] = self.read[m](batch.sequence(m), batch.lengths(m))
        z = self.fuse(torch.cat([x["l"], x["a"], x["v"]], dim=-1))
        return Prediction(self.head(z).squeeze(-1), {"vectors": x, "fused": z})

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Stage 1: the predictors' score. Stage 2: the task and both bounds."""
        output = step.forward(step.erased.batch)
        x, z = output.extras["vectors"], output.extras["fused"]
        score = sum(
            (self.estimators[m].score(x["l"], x[m]) for m in "va"),
            z.new_zeros(()),
        )
        if step.stage == 1:
            return {"score": -score, "total": -score}
        c = self.config
        error = task_loss(output.answer, step.labels, l1_loss)
        nce = torch.stack([info_nce(x[m], self.predict[m](z)) for m in "lva"]).sum()
        total = error + c.fusion_weight * nce - c.input_weight * score
        entropy = self._entropy(x, step)
        if step.number >= 2:
            total = total - c.input_weight * entropy
        return {"sentiment": error, "fusion": nce, "input": -score, "total": total}

    def _entropy(self, x: dict[str, Tensor], step: Step) -> Tensor:
        if step.number == 0:
            self._rows = {}
        entropy = torch.zeros_like(x["l"][0, 0])
        for m in "va":
            rows = self.estimators[m].rows(x[m], step.labels)
            if m in self._rows:
                joined = map(torch.cat, zip(rows, self._rows[m], strict=True))
                determinants = [log_determinant(side) for side in joined]
                entropy = entropy + 0.25 * torch.stack(determinants).sum()
            self._rows[m] = (rows[0].detach(), rows[1].detach())
        return entropy

    def stage_of(self, name: str) -> int:
        """Which stage trains a parameter."""
        return 1 if name.startswith("estimators") else 2

    def recipe(self, train: Optimisation) -> Recipe:
        """Adam, the encoder slower; two stages per epoch."""
        encoder = [p for p in self.text_encoder.parameters() if p.requires_grad]
        rest = [
            p
            for n, p in self.named_parameters()
            if p.requires_grad and not n.startswith("text_encoder")
        ]
        rate, decay = train.learning_rate, train.weight_decay
        groups = [
            {"params": encoder, "lr": rate * self.config.encoder_rate},
            {"params": rest, "lr": rate},
        ]
        return Recipe(
            [group | {"weight_decay": decay} for group in groups if group["params"]],
            coupled=True,
            clip_norm=self.config.clip_norm,
            stages=2,
            first_share=self.config.first_share,
        )
