"""Which matrix products a piece of work consists of, and how fast they are alone.

What a computation can reach at best is the speed of its own products, of their own
sizes, each run alone. The share of it that the whole reaches tells what the rest costs:
norms, activations, copies, and the operations that only start others.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: (batch, rows, inner, columns) of a product.
Sizes = tuple[int, int, int, int]


class Products(TorchDispatchMode):
    """Counts the products inside, those of attention among them."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[Sizes] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func._overloadpacket.__name__
        if name in ("mm", "bmm"):
            self._product(args[0].shape, args[1].shape)
        elif name in ("addmm", "baddbmm"):
            self._product(args[1].shape, args[2].shape)
        elif name.startswith("_scaled_dot_product"):
            backward = "backward" in name
            self._attention(*args[backward : backward + 2], backward)
        return func(*args, **(kwargs or {}))

    def _product(self, a: torch.Size, b: torch.Size) -> None:
        batch = a[0] if len(a) == 3 else 1
        self.counts[batch, a[-2], a[-1], b[-1]] += 1

    def _attention(self, q: torch.Tensor, k: torch.Tensor, backward: bool) -> None:
        batch, rows, width, columns = (
            q.shape[0] * q.shape[1],
            q.shape[2],
            q.shape[3],
            k.shape[2],
        )
        # Backwards the scores are computed again, and two products have two gradients.
        self.counts[batch, rows, width, columns] += 3 if backward else 1
        self.counts[batch, rows, columns, width] += 2 if backward else 1

    @property
    def flops(self) -> int:
        """Multiplications and additions of all products."""
        return sum(2 * b * m * k * n * c for (b, m, k, n), c in self.counts.items())


def at_best(work: Callable[[], object]) -> tuple[int, float]:
    """The FLOPs of a piece of work, and the seconds of its products run alone."""
    with Products() as seen:
        work()
    # Thousands of sizes may occur: those that make up 95 % are timed.
    by_size = sorted(seen.counts.items(), key=lambda item: -item[1] * _size(item[0]))
    timed = total = 0.0
    for sizes, count in by_size:
        timed += count * _seconds(sizes)
        total += count * 2 * _size(sizes)
        if total > 0.95 * seen.flops:
            break
    return seen.flops, timed * seen.flops / total


def _size(sizes: Sizes) -> int:
    batch, rows, inner, columns = sizes
    return batch * rows * inner * columns


def _seconds(sizes: Sizes) -> float:
    batch, rows, inner, columns = sizes
    a, b = torch.randn(batch, rows, inner), torch.randn(batch, inner, columns)
    if batch == 1:
        a, b = a[0], b[0]
    times = []
    for _ in range(4):
        start = time.process_time()
        a @ b
        times.append(time.process_time() - start)
    return min(times)
