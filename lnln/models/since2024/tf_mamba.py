"""TF-Mamba: text on whose axis audio and vision are laid, read by Mamba blocks.

Li et al., Findings of EMNLP 2025, arXiv 2505.14329. Built on LNLN's program. Follows
the published program where results rest on it: the states of an LSTM are themselves the
logits of the alignment, text reaches audio and vision in the enrichment only (the
blocks share a parameter, no data), and the two directions of a block begin differently.
Its program attends to padded text in the enrichment, the blocks and the maximum; here
this is masked, and `padding` asks for the published way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, normalize, smooth_l1_loss

from lnln.data.batch import Batch
from lnln.models.blocks.answers import task_loss
from lnln.models.blocks.layers import MultiHeadAttention
from lnln.models.method import Method, ModelConfig, Prediction, Step
from lnln.models.since2024.scan import BiMamba

EPSILON = 1e-6  # of all LayerNorms of this method
FRAMES = ("a", "v")


@dataclass(frozen=True)
class TFMambaConfig(ModelConfig):
    """Sizes and weights of TF-Mamba (values for MOSI).

    Attributes:
        width: D.
        expansion: inner width of the Mamba blocks as a multiple of D.
        states: N of the Mamba blocks.
        query_blocks: blocks behind the cross-attention (TQ-Mamba).
        heads, head_width: of the cross-attention.
        reconstruction: weight alpha of the removed words' features in the loss.
        dropout: p, in the reconstruction only.
        padding: attend to the padding behind a text, as published.
    """

    method: ClassVar[str] = "tf_mamba"
    width: int = 128
    expansion: int = 4
    states: int = 12
    query_blocks: int = 1
    heads: int = 8
    head_width: int = 64
    reconstruction: float = 0.7
    dropout: float = 0.1
    padding: bool = False

    def block(self, streams: int) -> BiMamba:
        """A Mamba block of so many streams."""
        rank = math.ceil(self.width / 16)
        sizes = (self.width, self.expansion, self.states, rank)
        return BiMamba(streams, *sizes, EPSILON)


class Alignment(nn.Module):
    """Frames to as many rows as a text has places, each a weighted sum over time.

    Args:
        input_width: d_m.
        length: L, places of a text.
    """

    def __init__(self, input_width: int, length: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_width, length + 1, num_layers=2, batch_first=True)

    def weights(self, frames: Tensor) -> Tensor:
        """P: (B, T_m, d_m) to (B, T_m, L + 1), place 0 being no place at all.

        States lie between -1 and 1, and they are the logits, so that no weight is far
        from uniform.
        """
        states: Tensor = self.lstm(frames)[0]
        return states.softmax(dim=-1)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T_m, d_m) to (B, L, d_m); zero frames at the end change nothing."""
        return self.weights(frames)[..., 1:].transpose(1, 2) @ frames


def project(input_width: int, width: int, normed: bool) -> nn.Sequential:
    """LayerNorm, a linear map, and another LayerNorm if asked for."""
    last = [nn.LayerNorm(width, eps=EPSILON)] if normed else []
    first = nn.LayerNorm(input_width, eps=EPSILON)
    return nn.Sequential(first, nn.Linear(input_width, width), *last)


def enrich(x: Tensor, text: Tensor, scale: Tensor, mask: Tensor) -> Tensor:
    """Add to each row the words that it resembles more than by chance (E_m).

    Args:
        x: (B, L, D) aligned audio or vision X_m.
        text: (B, T, D).
        scale: scalar s_m, logarithm of what cosine similarities are multiplied by.
        mask: (B, T) bool, True at words that may be added.

    Returns:
        (B, L, D) X_m + (M * S) T, S a softmax over words, M where it is above uniform.
    """
    x_hat, text_hat = (normalize(y, dim=-1, eps=1e-9) for y in (x, text))
    cosine = x_hat @ text_hat.transpose(1, 2)  # (B, L, T)
    logits = (scale.exp() * cosine).masked_fill(~mask[:, None], -math.inf)
    share = logits.softmax(dim=-1)
    uniform = 1 / mask.sum(dim=1)[:, None, None]
    return x + (share * (share > uniform)) @ text


def text_loss(estimate: Tensor, target: Tensor, removed: Tensor) -> Tensor:
    """Smooth absolute error of the removed words' features, over their numbers.

    Args:
        estimate, target: (B, T, d_l) R and H of the complete text.
        removed: (B, T) bool.
    """
    error = smooth_l1_loss(estimate, target, reduction="none").sum(dim=-1)
    count = estimate.shape[-1] * removed.sum()
    return error.masked_fill(~removed, 0.0).sum() / (count + 1e-6)


class TFMamba(Method):
    """The network.

    Args:
        config: sizes and weights.
        architecture: see `TextEncoder`; for loading checkpoints.
    """

    config: TFMambaConfig
    config_type = TFMambaConfig

    def __init__(
        self, config: TFMambaConfig, architecture: dict[str, object] | None = None
    ) -> None:
        super().__init__(config, architecture)
        d, text = config.width, self.text_encoder.width
        widths = {"a": config.audio_width, "v": config.vision_width}
        self.align = nn.ModuleDict(
            {m: Alignment(widths[m], config.text_length) for m in FRAMES}
        )
        self.project = nn.ModuleDict(
            {m: project(widths[m], d, normed=True) for m in FRAMES}
        )
        self.project_text = project(text, d, normed=False)
        self.scales = nn.ParameterDict(
            {m: nn.Parameter(torch.tensor(1 / 0.07).log()) for m in FRAMES}
        )
        self.reconstruct = nn.Sequential(
            nn.Linear(d, d), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(d, text)
        )
        self.pairs = nn.ModuleDict({m: config.block(2) for m in FRAMES})  # TC-Mamba
        self.attention = MultiHeadAttention(d, config.heads, config.head_width)
        self.norm = nn.LayerNorm(d, eps=EPSILON)
        self.readers = nn.ModuleList(
            config.block(1) for _ in range(config.query_blocks)
        )  # TQ-Mamba
        self.head = nn.Linear(d, 1)

    def trim(self, batch: Batch) -> Batch:
        """Cut padding; text to the model's length, where its padding is attended to."""
        shorter = batch.trim()
        if not self.config.padding:
            return shorter
        frames = (shorter.audio.shape[1], shorter.vision.shape[1])
        return batch.pad(self.config.text_length, *frames)

    def forward(self, batch: Batch) -> Prediction:
        """Predict from (corrupted) utterances, trimmed by `trim`.

        Returns:
            Extras: "text" (B, T_l, D), "aligned" {m: (B, L, d_m)}, "enriched" and
            "read" {m: (B, L, D)}, and "steps" (B, T_l, D), over whose maximum the
            answer is read; of texts and steps, padding is unspecified unless it is
            attended to.
        """
        real = batch.mask("l")
        seen = torch.ones_like(real) if self.config.padding else real
        mask = None if self.config.padding else real
        text = self.project_text(self.text_encoder(batch.tokens, batch.token_lengths))
        aligned = {m: self.align[m](batch.sequence(m)) for m in FRAMES}
        enriched = {
            m: enrich(self.project[m](aligned[m]), text, self.scales[m], seen)
            for m in FRAMES
        }
        pairs = {m: self.pairs[m]((enriched[m], None), (text, mask)) for m in FRAMES}
        read = {m: frames for m, (frames, _) in pairs.items()}
        query = (pairs["a"][1] + pairs["v"][1]) / 2
        keys = torch.cat([read[m] for m in FRAMES], dim=1)  # (B, 2 L, D)
        steps = query + self.norm(self.attention(query, keys, keys))
        for block in self.readers:
            (steps,) = block((steps, mask))
        highest = steps.masked_fill(~seen[..., None], -math.inf).amax(dim=1)
        extras = {
            "text": text,
            "aligned": aligned,
            "enriched": enriched,
            "read": read,
            "steps": steps,
        }
        return Prediction(self.head(highest).squeeze(-1), extras)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The squared error and alpha times that of the removed words' features."""
        output = step.forward(step.erased.batch)
        error = task_loss(output.answer, step.labels, mse_loss)
        complete = step.complete
        # The features to be recovered learn, too: nothing is detached, as published.
        target = self.text_encoder(complete.tokens, complete.token_lengths)
        removed = complete.mask("l") & ~step.erased.kept["l"]
        estimate = self.reconstruct(output.extras["text"])
        reconstruction = text_loss(estimate, target, removed)
        return {
            "sentiment": error,
            "reconstruction": reconstruction,
            "total": error + self.config.reconstruction * reconstruction,
        }
