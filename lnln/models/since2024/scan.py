"""The selective scan of Mamba, in plain PyTorch, and a block that reads both ways.

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023.
`selective_scan` is the recurrence as written, a loop over time in which autograd
remembers every step. `fast_selective_scan` gives the same numbers and is what the block
uses: all that does not depend on the step before is computed at once, one operation a
step remains, and the gradient is the same recurrence backwards in time. Nothing is
divided by a cumulative product, which would overflow where a state forgets quickly.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu, softplus

KERNEL = 4  # steps that the causal convolution sees
STEP_SIZES = (1e-3, 0.1)  # between which a forward direction's steps begin


def selective_scan(u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """h_t = exp(Delta_t A) h_{t-1} + Delta_t u_t B_t with h_0 = 0; read out by C_t.

    Args:
        u: (B, L, E) what is read.
        step: (B, L, E) positive step sizes Delta.
        a: (E, N) negative; how fast each state forgets.
        b, c: (B, L, N) how each step is written into the states, and read from them.

    Returns:
        (B, L, E) y, with y_t = h_t C_t.
    """
    h = u.new_zeros(len(u), *a.shape)  # (B, E, N)
    read = []
    for t in range(u.shape[1]):
        decay = (step[:, t, :, None] * a).exp()
        h = decay * h + (step * u)[:, t, :, None] * b[:, t, None, :]
        read.append((h * c[:, t, None, :]).sum(dim=-1))
    return torch.stack(read, dim=1)


def fast_selective_scan(
    u: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor
) -> Tensor:
    """As `selective_scan`, with one operation a step."""
    written = step * u
    parts = (x.transpose(0, 1).contiguous() for x in (written, step, b, c))
    y: Tensor = _Scan.apply(*parts, a.t().contiguous())
    return y.transpose(0, 1)


class _Scan(torch.autograd.Function):
    """The scan with its gradient, from states that are kept.

    Time comes first, so that what a step needs lies together, and E last, so that sums
    over states add long rows.
    """

    @staticmethod
    def forward(
        ctx: Any, written: Tensor, step: Tensor, b: Tensor, c: Tensor, a: Tensor
    ) -> Tensor:
        """(L, B, E) Delta u and Delta, (L, B, N) B and C, (N, E) A to (L, B, E) y."""
        decay = (step[:, :, None] * a).exp_()  # (L, B, N, E)
        h = written[:, :, None] * b[..., None]
        for t in range(1, len(h)):
            h[t].addcmul_(decay[t], h[t - 1])
        ctx.save_for_backward(written, step, b, c, a, decay, h)
        return (c[:, :, None] @ h).squeeze(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """The gradients in the order of `forward`."""
        written, step, b, c, a, decay, h = ctx.saved_tensors
        # How the loss changes with h_t, also through all later steps.
        of_h = grad[:, :, None] * c[..., None]
        for t in range(len(h) - 2, -1, -1):
            of_h[t].addcmul_(decay[t + 1], of_h[t + 1])
        of_exponent = (of_h[1:] * decay[1:]).mul_(h[:-1])
        of_step = torch.zeros_like(step)
        of_step[1:] = (of_exponent * a).sum(dim=2)
        return (
            (b[:, :, None] @ of_h).squeeze(2),
            of_step,
            (of_h @ written[..., None]).squeeze(-1),
            (h @ grad[..., None]).squeeze(-1),
            of_exponent.mul_(step[1:, :, None]).flatten(0, 1).sum(dim=0),
        )


class Direction(nn.Module):
    """One direction of one stream: a causal convolution, then the selective scan.

    Args:
        inner: E.
        states, rank: N, and the rank of the step sizes.
        small_steps: whether the step sizes begin small, so that states last long.
    """

    def __init__(self, inner: int, states: int, rank: int, small_steps: bool) -> None:
        super().__init__()
        self.sizes = [rank, states, states]
        self.conv = nn.Conv1d(inner, inner, KERNEL, groups=inner, padding=KERNEL - 1)
        self.to_scan = nn.Linear(inner, sum(self.sizes), bias=False)
        self.to_step = nn.Linear(rank, inner)
        self.skip = nn.Parameter(torch.ones(inner))  # d
        if small_steps:
            nn.init.uniform_(self.to_step.weight, -(rank**-0.5), rank**-0.5)
            low, high = (math.log(size) for size in STEP_SIZES)
            with torch.no_grad():
                start = torch.empty(inner).uniform_(low, high).exp()
                # The inverse of softplus.
                self.to_step.bias.copy_(start.expm1().log())

    def forward(
        self, x: Tensor, gate: Tensor, log_a: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Read a sequence from its first step to its last.

        Args:
            x, gate: (B, L, E) xi and zeta.
            log_a: (E, N) logarithm of -A.
            mask: (B, L) bool, True at steps that are read; None: all.

        Returns:
            (B, L, E) g; unspecified where it is masked.
        """
        if mask is not None:
            x = x * mask[..., None]
        u = silu(self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        if mask is not None:
            # The convolution's bias must not be written into a state either.
            u = u * mask[..., None]
        parts = self.to_scan(u).split(self.sizes, dim=-1)
        with torch.autocast(x.device.type, enabled=False):
            u, rank, b, c = (_precise(part) for part in (u, *parts))
            step = softplus(self.to_step(rank))
            y = fast_selective_scan(u, step, -log_a.exp(), b, c) + self.skip * u
        return y * silu(gate)


def _precise(x: Tensor) -> Tensor:
    # Products of fifty factors want more digits than bfloat16 has.
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Stream(nn.Module):
    """One stream of a block: both directions, their mean, and the norm on the branch.

    Args:
        width: D.
        inner, states, rank: E, N, rank of the step sizes.
        epsilon: of the norm.
    """

    def __init__(
        self, width: int, inner: int, states: int, rank: int, epsilon: float
    ) -> None:
        super().__init__()
        self.to_both = nn.Linear(width, 2 * inner, bias=False)
        self.ahead = Direction(inner, states, rank, small_steps=True)
        # The published program gives its small steps to one direction only, so that
        # the other begins by forgetting within a few steps.
        self.back = Direction(inner, states, rank, small_steps=False)
        self.to_out = nn.Linear(inner, width, bias=False)
        self.norm = nn.LayerNorm(width, eps=epsilon)

    def forward(
        self, x: Tensor, ahead: Tensor, back: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """(B, L, D), the log A of both directions and (B, L) to (B, L, D)."""
        inner, gate = self.to_both(x).chunk(2, dim=-1)
        turned = None if mask is None else mask.flip(1)
        found = self.ahead(inner, gate, ahead, mask)
        found_back = self.back(inner.flip(1), gate.flip(1), back, turned).flip(1)
        update: Tensor = self.norm(self.to_out((found + found_back) / 2))
        return x + update


class BiMamba(nn.Module):
    """Streams that are read in both directions and share how fast states forget.

    Nothing else passes from one to another.

    Args:
        streams: k.
        width: D.
        expansion: E / D.
        states: N.
        rank: of the step sizes.
        epsilon: of the norms.
    """

    def __init__(
        self,
        streams: int,
        width: int,
        expansion: int,
        states: int,
        rank: int,
        epsilon: float,
    ) -> None:
        super().__init__()
        inner = expansion * width
        start = torch.arange(1.0, states + 1).log().expand(inner, states)
        self.log_ahead = nn.Parameter(start.clone())
        self.log_back = nn.Parameter(start.clone())
        self.streams = nn.ModuleList(
            Stream(width, inner, states, rank, epsilon) for _ in range(streams)
        )

    def forward(self, *given: tuple[Tensor, Tensor | None]) -> list[Tensor]:
        """Read each stream.

        Args:
            given: for each stream (B, L, D) and its (B, L) mask, True at steps that are
                read, or None. Lengths may differ.

        Returns:
            (B, L, D) for each stream; unspecified where it is masked.
        """
        return [
            stream(x, self.log_ahead, self.log_back, mask)
            for stream, (x, mask) in zip(self.streams, given, strict=True)
        ]
