"""Transformer parts shared by all components.

The layer form is the released code's: pre-norm with separate LayerNorms for query,
key and value, 8 heads of 64 without q/k/v biases, a feed-forward part with GELU, no
final LayerNorm. Masks are bool, True where a position may be attended to.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


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
