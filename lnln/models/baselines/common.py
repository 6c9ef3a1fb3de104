"""What several compared methods share. B batch, T_m length, d_m feature width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


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


@dataclass(frozen=True)
class Dropouts:
    """Dropout of the attention weights, hidden layer, updates and embedded input."""

    attention: float = 0.0
    hidden: float = 0.0
    update: float = 0.0
    embedding: float = 0.0


class CrossEncoder(nn.Module):
    """Pre-norm layers in which one stream attends to itself or to another one.

    Keys and values stay the embedded other stream in every layer; one LayerNorm serves
    queries, keys and values. Padding is not masked.

    Args:
        width, heads, layers: sizes.
        dropouts: see `Dropouts`.
        positions: add sinusoidal positions, except where the first channel is 0.
        causal: query i sees key j only if j <= i + |T_k - T_q|.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        dropouts: Dropouts,
        *,
        positions: bool = False,
        causal: bool = True,
    ) -> None:
        super().__init__()
        self.width, self.positions, self.causal = width, positions, causal
        self.embedding_dropout = nn.Dropout(dropouts.embedding)
        self.layers = nn.ModuleList(
            _Layer(width, heads, dropouts) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """(B, T_q, d) queries and (B, T_k, d) keys, or themselves, to (B, T_q, d)."""
        mask = None
        if self.causal:
            keys = x.shape[1] if source is None else source.shape[1]
            mask = causal_mask(x.shape[1], keys).to(x.device)
        x = self._embed(x)
        source = None if source is None else self._embed(source)
        for layer in self.layers:
            x = layer(x, source, mask)
        normed: Tensor = self.norm(x)
        return normed

    def _embed(self, x: Tensor) -> Tensor:
        scaled = self.width**0.5 * x
        if self.positions:
            table = sinusoids(x.shape[1], self.width).to(x)
            scaled = scaled + table * x[..., :1].ne(0)
        embedded: Tensor = self.embedding_dropout(scaled)
        return embedded


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, dropouts: Dropouts) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(
            width, heads, dropouts.attention, batch_first=True
        )
        self.norm_hidden = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, 4 * width)
        self.output = nn.Linear(4 * width, width)
        self.hidden_dropout = nn.Dropout(dropouts.hidden)
        self.update_dropout = nn.Dropout(dropouts.update)
        for linear in (self.attention.out_proj, self.hidden, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, source: Tensor | None, mask: Tensor | None) -> Tensor:
        q = self.norm(x)
        k = q if source is None else self.norm(source)
        update, _ = self.attention(q, k, k, attn_mask=mask, need_weights=False)
        x = x + self.update_dropout(update)
        inner = self.hidden_dropout(self.hidden(self.norm_hidden(x)).relu())
        return x + self.update_dropout(self.output(inner))


def causal_mask(queries: int, keys: int) -> Tensor:
    """(T_q, T_k) bool, True where a query may *not* look."""
    offset = abs(keys - queries)
    later = torch.arange(keys) > torch.arange(queries)[:, None] + offset
    return later


def sinusoids(length: int, width: int) -> Tensor:
    """(T, d) positions 1 to T: sines in the first half of the width, then cosines."""
    half = width // 2
    rates = 10000 ** (-torch.arange(half) / max(half - 1, 1))
    angles = torch.arange(1, length + 1)[:, None] * rates
    table = torch.zeros(length, width)
    table[:, :half], table[:, half : 2 * half] = angles.sin(), angles.cos()
    return table
