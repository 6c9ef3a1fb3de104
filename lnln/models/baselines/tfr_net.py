"""TFR-Net: made for incomplete data; it reconstructs exactly what was removed.

Yuan et al., ACM Multimedia 2021. Follows MMSA's program where results rest on it: in
the reconstruction (not in the prediction) samples of a batch attend to each other, and
padding takes part in the fusion's maximum. Where it is plainly an accident: each batch
makes one step (the program makes five of four batches), the 25 heads of the
reconstruction become 1 where they do not divide the length, and a modality with nothing
removed is skipped. Cutting the rate after 5 epochs without progress is left out, since
training stops after 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, smooth_l1_loss
from torch.nn.utils.rnn import pad_packed_sequence

from lnln.data.batch import MODALITIES, Batch
from lnln.models.baselines.misa import cmd
from lnln.models.blocks.answers import task_loss
from lnln.models.blocks.layers import CrossEncoder, Dropouts, packed
from lnln.models.method import (
    Method,
    ModelConfig,
    Optimisation,
    Prediction,
    Recipe,
    Step,
    split_by_decay,
)

TEMPORAL_HEADS, MOMENTS = 25, 3


@dataclass(frozen=True)
class TFRNetConfig(ModelConfig):
    """Sizes and weights of TFR-Net (values for MOSI); tuples go l, a, v.

    Attributes:
        width, attention_heads: d and heads of the Transformers.
        cross_layers, self_layers, temporal_layers: depths.
        kernels: of the projections.
        attention_dropouts: by the modality that is attended to.
        hidden_dropout, embedding_dropout, update_dropout: of the Transformers.
        states: widths g_m of the fusion's GRUs.
        classifier: hidden width of the classifier; classifier_dropout: there.
        dropout: of the text's features and of the fused vectors.
        reconstruction: weights lambda_m.
        similarity: weight of the moments in the reconstruction loss.
        encoder_rate: the encoder's learning rate as a share of the others'.
        encoder_decay: weight decay of the encoder.
        clip_value: largest size of an entry of a gradient.
    """

    method: ClassVar[str] = "tfr_net"
    width: int = 30
    attention_heads: int = 6
    cross_layers: int = 3
    self_layers: int = 3
    temporal_layers: int = 3
    kernels: tuple[int, int, int] = (1, 5, 3)
    attention_dropouts: tuple[float, float, float] = (0.2, 0.1, 0.0)
    hidden_dropout: float = 0.2
    embedding_dropout: float = 0.2
    update_dropout: float = 0.2
    states: tuple[int, int, int] = (36, 20, 48)
    classifier: int = 128
    classifier_dropout: float = 0.0
    dropout: float = 0.2
    reconstruction: tuple[float, float, float] = (5.0, 2.0, 20.0)
    similarity: float = 5.0
    encoder_rate: float = 0.002
    encoder_decay: float = 1e-4
    clip_value: float = 0.8


class GatedFusion(nn.Module):
    """A gated bidirectional GRU and a maximum over time: one vector per modality.

    Args:
        input_width: 3 d. state: g_m. dropout: of the result.
    """

    def __init__(self, input_width: int, state: int, dropout: float) -> None:
        super().__init__()
        self.gru = nn.GRU(
            input_width, state, num_layers=3, batch_first=True, bidirectional=True
        )
        self.gate = nn.Conv1d(2 * state, 1, 3, padding=1)
        self.mix = nn.Linear(input_width + 2 * state, state)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, T_m, 3 d) and (B,) lengths to (B, g_m)."""
        states, _ = pad_packed_sequence(
            self.gru(packed(x, lengths))[0],
            batch_first=True,
            total_length=x.shape[1],
        )
        gate = self.gate(states.transpose(1, 2)).sigmoid().transpose(1, 2)
        mixed = self.mix(torch.cat([x, states.tanh() * gate], dim=-1)).tanh()
        vector: Tensor = self.dropout(mixed.amax(dim=1))
        return vector


class TFRNet(Method):
    """The network.

    Args:
        config: sizes and weights.
        architecture: see `TextEncoder`; for loading checkpoints.
    """

    config: TFRNetConfig
    config_type = TFRNetConfig
    last = "classify.3"

    def __init__(
        self, config: TFRNetConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__(config, architecture)
        d = config.width
        widths = dict(
            zip(
                MODALITIES,
                (self.text_encoder.width, config.audio_width, config.vision_width),
                strict=True,
            )
        )
        lengths = (config.text_length, config.audio_length, config.vision_length)
        self.project = nn.ModuleDict(
            {
                m: nn.Conv1d(widths[m], d, k, padding=k // 2, bias=False)
                for m, k in zip(MODALITIES, config.kernels, strict=True)
            }
        )
        self.text_dropout = nn.Dropout(config.dropout)
        by = dict(zip(MODALITIES, config.attention_dropouts, strict=True))
        self.itself = nn.ModuleDict(
            {m: self._encoder(d, config.self_layers, by["l"]) for m in MODALITIES}
        )
        self.other = nn.ModuleDict(
            {
                f"{target}{source}": self._encoder(d, config.cross_layers, by[source])
                for target in MODALITIES
                for source in MODALITIES
                if source != target
            }
        )
        self.temporal = nn.ModuleDict(
            {
                m: CrossEncoder(
                    size,
                    TEMPORAL_HEADS if size % TEMPORAL_HEADS == 0 else 1,
                    config.temporal_layers,
                    self._dropouts(by["l"]),
                )
                for m, size in zip(MODALITIES, lengths, strict=True)
            }
        )
        self.generate = nn.ModuleDict(
            {m: nn.Linear(3 * d, widths[m]) for m in MODALITIES}
        )
        self.fuse = nn.ModuleDict(
            {
                m: GatedFusion(3 * d, state, config.dropout)
                for m, state in zip(MODALITIES, config.states, strict=True)
            }
        )
        total = sum(config.states)
        self.norm = nn.BatchNorm1d(total)
        self.classify = nn.Sequential(
            nn.Linear(total, config.classifier),
            nn.LeakyReLU(0.01),
            nn.Dropout(config.classifier_dropout),
            nn.Linear(config.classifier, 1),
        )

    def _dropouts(self, attention: float) -> Dropouts:
        c = self.config
        return Dropouts(
            attention, c.hidden_dropout, c.update_dropout, c.embedding_dropout
        )

    def _encoder(self, width: int, layers: int, dropout: float) -> CrossEncoder:
        return CrossEncoder(
            width,
            self.config.attention_heads,
            layers,
            self._dropouts(dropout),
            positions=True,
        )

    def trim(self, batch: Batch) -> Batch:
        """Pad to the model's lengths, which the reconstruction is built for."""
        c = self.config
        return batch.pad(c.text_length, c.audio_length, c.vision_length)

    def forward(self, batch: Batch) -> Prediction:
        """Predict from (corrupted) utterances, padded by `trim`."""
        text = self.text_encoder(batch.tokens, batch.token_lengths)
        inputs = {"l": self.text_dropout(text), "a": batch.audio, "v": batch.vision}
        x = {
            m: self.project[m](sequence.transpose(1, 2)).transpose(1, 2)
            for m, sequence in inputs.items()
        }
        features = {
            m: torch.cat(
                [
                    self.itself[m](x[m]),
                    *(self.other[m + o](x[m], x[o]) for o in MODALITIES if o != m),
                ],
                dim=-1,
            )
            for m in MODALITIES
        }
        vectors = [self.fuse[m](features[m], batch.lengths(m)) for m in MODALITIES]
        joined = torch.cat(vectors, dim=-1)
        if self.training and len(joined) == 1:
            # One utterance has no variance; the running statistics serve it.
            self.norm.eval()
            normed = self.norm(joined)
            self.norm.train()
        else:
            normed = self.norm(joined)
        answer = self.classify(normed).squeeze(-1)
        return Prediction(answer, {"features": features})

    def reconstruct(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """{m: (B, T_m, 3 d)} features to {m: (B, T_m, d_m)} estimates of the input.

        The encoder's sequence is the batch and its width is time, as published.
        """
        return {
            m: self.generate[m](self.temporal[m](x.permute(2, 0, 1)).permute(1, 2, 0))
            for m, x in features.items()
        }

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The absolute error and, from epoch 2, the reconstruction of the removed."""
        output = step.forward(step.erased.batch)
        error = task_loss(output.answer, step.labels, l1_loss)
        terms = {"sentiment": error, "total": error}
        if step.epoch == 1:
            return terms
        complete, c = step.complete, self.config
        targets = {
            "l": self.text_encoder(complete.tokens, complete.token_lengths),
            "a": complete.audio,
            "v": complete.vision,
        }
        estimates = self.reconstruct(output.extras["features"])
        parts = zip(MODALITIES, c.reconstruction, strict=True)
        reconstruction = torch.zeros_like(error)
        for m, weight in parts:
            removed = complete.mask(m) & ~step.erased.kept[m]
            if bool(removed.any()):
                loss = removal_loss(estimates[m], targets[m], removed, c.similarity)
                reconstruction = reconstruction + weight * loss
        return {
            "sentiment": error,
            "reconstruction": reconstruction,
            "total": error + reconstruction,
        }

    def recipe(self, train: Optimisation) -> Recipe:
        """Adam with three groups, clipped by value."""
        c = self.config
        decayed, plain = split_by_decay(self.text_encoder)
        rest = [
            p for n, p in self.named_parameters() if not n.startswith("text_encoder")
        ]
        slow = train.learning_rate * c.encoder_rate
        groups: list[dict[str, Any]] = [
            {"params": decayed, "lr": slow, "weight_decay": c.encoder_decay},
            {"params": plain, "lr": slow, "weight_decay": 0.0},
            {
                "params": rest,
                "lr": train.learning_rate,
                "weight_decay": train.weight_decay,
            },
        ]
        return Recipe(
            [group for group in groups if group["params"]],
            coupled=True,
            clip_value=c.clip_value,
        )


def removal_loss(
    estimate: Tensor, target: Tensor, removed: Tensor, similarity: float
) -> Tensor:
    """How badly the removed positions are reconstructed.

    Args:
        estimate, target: (B, T, d).
        removed: (B, T) bool.
        similarity: weight of the distance of the moments.

    Returns:
        Sum of the smooth absolute errors and the weighted distance, over the number of
        removed scalars.
    """
    weight = removed[..., None].to(estimate.dtype)
    a, b = (estimate * weight, target * weight)
    count = weight.sum() * estimate.shape[-1]
    error = smooth_l1_loss(a, b, reduction="sum")
    moments = cmd(a.flatten(0, 1), b.flatten(0, 1), MOMENTS)
    return (error + similarity * moments) / (count + 1e-4)
