"""Rows of a batch, encoded with little padding, and once where they are equal.

Rows do not see each other in any encoder, so none of this changes a result.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

#: Per device: positions of padding that are worth a group of their own, and the most
#: positions of a group. On a CPU more do not fit its cache between operations; a GPU
#: wants few and large groups: on an H200 a training step at MOSI's lengths takes 56 to
#: 62 ms with 16384 or more, 100 ms with 2048.
GROUPS = {"cpu": (512, 4096), "cuda": (16384, 1 << 20)}


def equal_rows(a: Tensor, b: Tensor) -> Tensor:
    """(B, ...) and (B, ...) to (B,) bool, True where the two rows are equal."""
    return (a == b).flatten(1).all(dim=1)


def length_groups(lengths: Tensor) -> list[tuple[Tensor, int]]:
    """Group rows of similar length, longest first.

    Args:
        lengths: (B,) real lengths, on the device where the rows will be encoded.

    Returns:
        Per group the indices of its rows and the longest length; together each row
        once.
    """
    worth, most = GROUPS.get(lengths.device.type, GROUPS["cuda"])
    order = lengths.argsort(descending=True)
    in_order = lengths[order].tolist()
    starts = [0]
    for row, length in enumerate(in_order):
        longest = in_order[starts[-1]]
        saved = (longest - length) * (len(in_order) - row)
        full = longest * (row + 1 - starts[-1]) > most
        if row > starts[-1] and (saved > worth or full):
            starts.append(row)
    ends = [*starts[1:], len(in_order)]
    return [(order[a:b], in_order[a]) for a, b in zip(starts, ends, strict=True)]


def in_groups(
    encode: Callable[[Tensor, Tensor], Tensor],
    sequence: Tensor,
    mask: Tensor,
    every_position: bool = False,
) -> Tensor:
    """Encode rows of similar length together, without the padding behind them.

    Args:
        encode: maps (B, T_m, ...) and (B, T_m) bool to (B, T, d).
        sequence: (B, T_m, ...).
        mask: (B, T_m) bool, True at real positions, which come first.
        every_position: the result has the positions of `sequence` (T = T_m) instead of
            a fixed number; what lies behind a group's longest row is zero then.

    Returns:
        (B, T, d), at real positions the same as `encode(sequence, mask)`.
    """
    groups = length_groups(mask.sum(dim=1))
    size = sequence.shape[1]
    if len(groups) == 1 and groups[0][1] == size:
        return encode(sequence, mask)
    parts = [encode(sequence[rows, :n], mask[rows, :n]) for rows, n in groups]
    if every_position:
        parts = [pad(part, (0, 0, 0, size - part.shape[1])) for part in parts]
    order = torch.cat([rows for rows, _ in groups])
    return torch.cat(parts)[order.argsort()]


def encode_both(
    encode: Callable[..., Tensor],
    first: tuple[Tensor | None, ...],
    second: tuple[Tensor | None, ...],
    same: Tensor,
    second_learns: bool = True,
) -> tuple[Tensor, Tensor]:
    """Encode two versions of a batch, computing rows that are equal once.

    Args:
        encode: maps tensors with B rows (or None) to a tensor with B rows.
        first, second: its arguments for the two versions.
        same: (B,) bool, True where both versions have the same result.
        second_learns: whether gradient flows through the second result.

    Returns:
        Both results.
    """
    rest = (~same).nonzero().squeeze(1)
    if len(rest) == 0:
        result = encode(*first)
        return result, result if second_learns else result.detach()
    others = tuple(None if x is None else x[rest] for x in second)
    if second_learns:
        pairs = zip(first, others, strict=True)
        both = (None if a is None or b is None else torch.cat([a, b]) for a, b in pairs)
        joint = encode(*both)
        result, fresh = joint[: len(same)], joint[len(same) :]
        return result, result.index_copy(0, rest, fresh)
    result = encode(*first)
    with torch.no_grad():
        return result, result.index_copy(0, rest, encode(*others))
