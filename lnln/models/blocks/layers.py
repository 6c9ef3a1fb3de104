"""Parts that several networks are built from.

The Transformer layer's form is the released code's: pre-norm with separate LayerNorms
for query, key and value, 8 heads of 64 without q/k/v biases, a feed-forward part with
GELU, no final LayerNorm. Masks are bool, True where a position may be attended to.
`CrossEncoder` is MulT's, from which TETFN and TFR-Net are built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pack_padded_sequence


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with its own head width.

    Args:
        width: d of queries, keys, values and output.
        heads: number of heads.
        head_width: width of each head; heads * head_width need not equal d.
    """

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(width, inner, bias=False)
        self.to_v = nn.Linear(width, inner, bias=False)
        self.to_out = nn.Linear(inner, width)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Attend.

        Args:
            query: (B, T_q, d).
            key, value: (B, T_k, d).
            mask: (B, T_k) bool, True at keys that may be attended to; None: all.

        Returns:
            (B, T_q, d).
        """
        q, k, v = self.to_q(query), self.to_k(key), self.to_v(value)
        found = attend(self.split(q), self.split(k), self.split(v), mask)
        mixed: Tensor = self.to_out(found.transpose(1, 2).flatten(2))
        return mixed

    def attention_map(
        self, query: Tensor, key: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The attention weights that `forward` uses: (B, heads, T_q, T_k)."""
        q, k = self.split(self.to_q(query)), self.split(self.to_k(key))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
        return scores.softmax(dim=-1)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, heads * head_width) to (B, heads, T, head_width)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(head width)) v, for each head.

    Args:
        q, k, v: (B, heads, T, head width).
        mask: (B, T_k) bool, True at keys that may be attended to; None: all.
    """
    visible = None if mask is None else mask[:, None, None, :]
    return scaled_dot_product_attention(q, k, v, attn_mask=visible)


class FeedForward(nn.Sequential):
    """Linear, GELU, Linear on every position: (B, T, d) to (B, T, d)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Perceptron(nn.Sequential):
    """Linear to half the width, LeakyReLU, Linear: (..., d) to (..., outputs)."""

    def __init__(self, width: int, outputs: int) -> None:
        half = width // 2
        super().__init__(
            nn.Linear(width, half), nn.LeakyReLU(0.1), nn.Linear(half, outputs)
        )


class TransformerLayer(nn.Module):
    """One pre-norm layer, for self-attention or cross-attention.

    x <- x + MHA(LN_q x, LN_k m, LN_v m), x <- x + FFN(LN x), with m = x by default.

    Args:
        width: d.
        heads, head_width: see `MultiHeadAttention`.
        ffn_width: hidden width of the feed-forward part.
        dropout: on both updates before they are added (0 in the released code).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        ffn_width: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_q = nn.LayerNorm(width)
        self.norm_k = nn.LayerNorm(width)
        self.norm_v = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads, head_width)
        self.norm_ffn = nn.LayerNorm(width)
        self.ffn = FeedForward(width, ffn_width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Apply the layer.

        Args:
            x: (B, T_q, d) query stream.
            memory: (B, T_k, d) key/value stream; None: x itself.
            mask: (B, T_k) bool mask of the key stream; None: attend everywhere.

        Returns:
            (B, T_q, d).
        """
        m = x if memory is None else memory
        found = self.attention(self.norm_q(x), self.norm_k(m), self.norm_v(m), mask)
        return self.updated(x, found)

    def updated(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add what attention found, then the feed-forward part: (B, T_q, d) each."""
        x = x + self.dropout(attended)
        fed: Tensor = self.dropout(self.ffn(self.norm_ffn(x)))
        return x + fed


class TransformerEncoder(nn.Module):
    """A stack of self-attention layers with learned positions.

    Args:
        length: longest sequence.
        depth: number of layers.
        width, heads, head_width, ffn_width, dropout: see `TransformerLayer`.
    """

    def __init__(
        self,
        length: int,
        depth: int,
        width: int,
        heads: int,
        head_width: int,
        ffn_width: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.positions = learnable(length, width)
        self.layers = nn.ModuleList(
            TransformerLayer(width, heads, head_width, ffn_width, dropout)
            for _ in range(depth)
        )

    def forward(
        self, x: Tensor, mask: Tensor | None = None, read: int | None = None
    ) -> Tensor:
        """Encode.

        Args:
            x: (B, T, d) with T at most `length`.
            mask: (B, T) bool, True at real positions; None: all.
            read: the paper's (...)_{1:T}: so many leading positions; None: all.

        Returns:
            (B, T, d) or (B, read, d).
        """
        x = x + self.positions[:, : x.shape[1]]
        for layer in self.layers:
            x = layer(x, mask=mask)
        return x[:, :read]

    def hidden_states(self, x: Tensor) -> list[Tensor]:
        """The input with positions, then every layer's output: 1 + depth (B, T, d)."""
        states = [x + self.positions[:, : x.shape[1]]]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return states


def learnable(length: int, width: int) -> nn.Parameter:
    """A learnable (1, length, width) block, drawn from N(0, 0.02^2)."""
    return nn.Parameter(0.02 * torch.randn(1, length, width))


def prepend(tokens: Tensor, x: Tensor) -> Tensor:
    """Put a learnable block (1, T, d) in front of every sequence (B, S, d)."""
    return torch.cat([tokens.expand(x.shape[0], -1, -1), x], dim=1)


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grad, None  # type: ignore[attr-defined]


def reverse_gradient(x: Tensor, strength: float = 1.0) -> Tensor:
    """Gradient reversal layer: identity forward, gradient times -strength backward.

    Args:
        x: any tensor.
        strength: lambda of the paper, 1 throughout.

    Returns:
        x itself, for the forward pass.
    """
    reversed_: Tensor = _ReverseGradient.apply(x, strength)
    return reversed_


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
        causal: query i sees key j only if j <= i + abs(T_k - T_q).
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
            _CrossLayer(width, heads, dropouts) for _ in range(layers)
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


class _CrossLayer(nn.Module):
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
