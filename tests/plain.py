"""The straightforward computation, as written in the paper and the chapters.

Inside `with plain():` every position of every layer is computed, attention is a softmax
of a product, both versions of a batch are encoded whole, and nothing is trimmed. It is
what the package's faster forms are tested and timed against.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import lnln.models.dmml
import lnln.models.model
from lnln.data.batch import Batch
from lnln.models.layers import MultiHeadAttention, TransformerEncoder, TransformerLayer
from lnln.models.model import LNLN


def weighted_mean(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(width)) v, with every score written out."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    return scores.softmax(dim=-1) @ v


def attend(
    self: MultiHeadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    q, k, v = self.to_q(query), self.to_k(key), self.to_v(value)
    visible = None if mask is None else mask[:, None, None, :]
    out = weighted_mean(self.split(q), self.split(k), self.split(v), visible)
    return self.to_out(out.transpose(1, 2).flatten(2))


def layer(
    self: TransformerLayer,
    x: Tensor,
    memory: Tensor | None = None,
    mask: Tensor | None = None,
    read: int | None = None,
) -> Tensor:
    memory = x if memory is None else memory
    q, k, v = self.norm_q(x), self.norm_k(memory), self.norm_v(memory)
    x = x + self.dropout(self.attention(q, k, v, mask))
    return x + self.dropout(self.ffn(self.norm_ffn(x)))


def encode(
    self: TransformerEncoder,
    x: Tensor,
    mask: Tensor | None = None,
    read: int | None = None,
) -> Tensor:
    x = x + self.positions[:, : x.shape[1]]
    for each in self.layers:
        x = each(x, mask=mask)
    return x[:, :read]


def encode_twice(
    encoder: Callable[..., Tensor],
    first: tuple[Tensor | None, ...],
    second: tuple[Tensor | None, ...],
    same: Tensor,
    second_learns: bool = True,
) -> tuple[Tensor, Tensor]:
    with torch.set_grad_enabled(second_learns and torch.is_grad_enabled()):
        other = encoder(*second)
    return encoder(*first), other


def encode_at_once(
    encoder: Callable[..., Tensor],
    sequence: Tensor,
    mask: Tensor,
    every_position: bool = False,
) -> Tensor:
    return encoder(sequence, mask)


def untrimmed(self: LNLN, batch: Batch) -> Batch:
    return batch


@contextmanager
def plain() -> Iterator[None]:
    """Compute the straightforward way inside this block."""
    swaps: tuple[tuple[Any, str, Any], ...] = (
        (MultiHeadAttention, "forward", attend),
        (TransformerLayer, "forward", layer),
        (TransformerEncoder, "forward", encode),
        (LNLN, "trim", untrimmed),
        (lnln.models.model, "encode_both", encode_twice),
        (lnln.models.model, "encode_in_groups", encode_at_once),
        (lnln.models.dmml, "scaled_dot_product_attention", weighted_mean),
    )
    with ExitStack() as stack:
        for owner, name, replacement in swaps:
            stack.enter_context(patch.object(owner, name, replacement))
        yield
