"""Transformer parts shared by all components.

The layer form is the released code's: pre-norm with separate LayerNorms for query,
key and value, 8 heads of 64 without q/k/v biases, a feed-forward part with GELU, no
final LayerNorm. Masks are bool, True where a position may be attended to.

Self-attention is computed in a faster form than it is written, with the same result:
the three LayerNorms share one normalisation, whose scales and shifts move into the
q/k/v maps; and where only the first positions are read, keys and values are never
formed at all. `tests/plain.py` holds the form as written, and both must agree.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention


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
        q = self.split(self.to_q(query))
        k = self.split(self.to_k(key))
        v = self.split(self.to_v(value))
        out = scaled_dot_product_attention(q, k, v, attn_mask=_for_heads(mask))
        mixed: Tensor = self.to_out(out.transpose(1, 2).flatten(2))
        return mixed

    def attention_map(
        self, query: Tensor, key: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The attention weights that `forward` uses.

        Args:
            query: (B, T_q, d).
            key: (B, T_k, d).
            mask: as in `forward`.

        Returns:
            (B, heads, T_q, T_k), rows sum to 1.
        """
        q, k = self.split(self.to_q(query)), self.split(self.to_k(key))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
        return scores.softmax(dim=-1)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, heads * head_width) to (B, heads, T, head_width)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _for_heads(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask[:, None, None, :]


class FeedForward(nn.Sequential):
    """Linear, GELU, Linear on every position: (B, T, d) to (B, T, d)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


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
        self,
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        read: int | None = None,
    ) -> Tensor:
        """Apply the layer.

        Args:
            x: (B, T_q, d) query stream.
            memory: (B, T_k, d) key/value stream; None: x itself.
            mask: (B, T_k) bool mask of the key stream; None: attend everywhere.
            read: of self-attention, compute the first `read` positions only, where
                nothing else is used; None: all.

        Returns:
            (B, T_q, d) or (B, read, d).
        """
        if memory is not None:
            attended = self.attention(
                self.norm_q(x), self.norm_k(memory), self.norm_v(memory), mask
            )
        elif read is None:
            attended = self._attend(self._queries_keys_values(x), mask)
        else:
            attended = self._attend_from_first(x, mask, read)
            x = x[:, :read]
        return self._updated(x, attended)

    def mixed(self, versions: Tensor, first: Tensor) -> Tensor:
        """The layer on sequences whose positions come from one of two versions.

        Every position is normalised and mapped once per version, not once per
        sequence.

        Args:
            versions: (2, S, d).
            first: (C, S) bool, True where a sequence takes the first version.

        Returns:
            (C, S, d).
        """
        choose = first[..., None]
        x = torch.where(choose, versions[0], versions[1])
        mapped = self._queries_keys_values(versions)
        chosen = torch.where(choose, mapped[0], mapped[1])
        return self._updated(x, self._attend(chosen, None))

    def _updated(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.dropout(attended)
        fed: Tensor = self.dropout(self.ffn(self.norm_ffn(x)))
        return x + fed

    def _queries_keys_values(self, x: Tensor) -> Tensor:
        # One product for q, k and v: LN_q, LN_k, LN_v differ in scale and shift only.
        attention = self.attention
        maps = (
            _folded(self.norm_q, attention.to_q),
            _folded(self.norm_k, attention.to_k),
            _folded(self.norm_v, attention.to_v),
        )
        weight = torch.cat([w for w, _ in maps])
        bias = torch.cat([b for _, b in maps])
        return linear(self._normalised(x), weight, bias)

    def _attend(self, mapped: Tensor, mask: Tensor | None) -> Tensor:
        attention = self.attention
        q, k, v = (attention.split(part) for part in mapped.chunk(3, dim=-1))
        out = scaled_dot_product_attention(q, k, v, attn_mask=_for_heads(mask))
        mixed: Tensor = attention.to_out(out.transpose(1, 2).flatten(2))
        return mixed

    def _attend_from_first(self, x: Tensor, mask: Tensor | None, read: int) -> Tensor:
        # q . (W_k z) = (W_k^T q) . z, and the weighted mean of W_v z is W_v times the
        # weighted mean of z. So with few queries the maps act on queries and results
        # instead of on every position; the shift of LN_k adds the same to all scores
        # of a query and drops out of the softmax.
        attention = self.attention
        z = self._normalised(x)
        q = attention.split(linear(z[:, :read], *_folded(self.norm_q, attention.to_q)))
        scale = q.shape[-1] ** -0.5
        to_k, _ = _folded(self.norm_k, attention.to_k)
        to_v, shift = _folded(self.norm_v, attention.to_v)
        to_k = to_k.unflatten(0, (attention.heads, -1))  # (heads, head_width, d)
        to_v = to_v.unflatten(0, (attention.heads, -1))
        q = torch.einsum("bhqw,hwd->bhqd", q, to_k).flatten(1, 2)[:, None]
        z = z[:, None]
        mean = scaled_dot_product_attention(
            q, z, z, attn_mask=_for_heads(mask), scale=scale
        )
        mean = mean[:, 0].unflatten(1, (attention.heads, -1))
        out = torch.einsum("bhqd,hwd->bqhw", mean, to_v).flatten(2) + shift
        mixed: Tensor = attention.to_out(out)
        return mixed

    def _normalised(self, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], eps=self.norm_q.eps)


def _folded(norm: nn.LayerNorm, to: nn.Linear) -> tuple[Tensor, Tensor]:
    # to(norm(x)) = weight @ normalised(x) + bias
    return to.weight * norm.weight, to.weight @ norm.bias


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
            read: how many leading positions of the result are used; None: all.

        Returns:
            (B, T, d) or (B, read, d).
        """
        x = x + self.positions[:, : x.shape[1]]
        for layer in self.layers[:-1]:
            x = layer(x, mask=mask)
        last: Tensor = self.layers[-1](x, mask=mask, read=read)
        return last

    def mixed(self, versions: Tensor, first: Tensor, read: int) -> Tensor:
        """Encode sequences whose positions come from one of two versions.

        Args:
            versions: (2, S, d) without positions.
            first: (C, S) bool, True where a sequence takes the first version.
            read: how many leading positions of the result are used.

        Returns:
            (C, read, d).
        """
        versions = versions + self.positions[:, : versions.shape[1]]
        if len(self.layers) == 1:
            x = torch.where(first[..., None], versions[0], versions[1])
        else:
            x = cast(TransformerLayer, self.layers[0]).mixed(versions, first)
        for layer in self.layers[1:-1]:
            x = layer(x)
        last: Tensor = self.layers[-1](x, read=read)
        return last

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
