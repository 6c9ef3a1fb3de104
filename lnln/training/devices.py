"""Where to compute: the name of a device, and what to do when its memory runs out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lnln.data.errors import SettingsError, UserError


class DeviceMemoryError(UserError, RuntimeError):
    """A device has too little memory even for the smallest piece of the work."""


def resolve_device(name: torch.device | str = "auto") -> torch.device:
    """The device of a name; "auto" is CUDA where there is one, else the CPU.

    Args:
        name: "auto", "cpu", "cuda" or, of several, "cuda:1".

    Returns:
        The device, which this machine has.

    Raises:
        SettingsError: this machine has no such device.
    """
    name = str(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if count else "cpu"
    known = ["cpu"] + ["cuda"] * bool(count) + [f"cuda:{i}" for i in range(count)]
    if name not in known:
        raise SettingsError(
            f"device {name!r} is not to be had here; choose from auto, "
            + ", ".join(known)
        )
    if name != "cpu":
        # cuBLAS repeats exactly only with this set before its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device(name)


T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Processes:
    """The processes that train one model together.

    Attributes:
        rank: of this one, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def part(self, size: int) -> tuple[Tensor, float]:
        """This process's part of a batch.

        Args:
            size: of the whole batch.

        Returns:
            The places of its utterances in the batch, and their weight: the share of
            the batch. A batch that has fewer utterances than there are processes is
            taken whole by all of them.
        """
        places = torch.arange(size)
        if size < self.count:
            return places, 1 / self.count
        mine = places.tensor_split(self.count)[self.rank]
        return mine, len(mine) / size

    def average_gradients(self, parameters: Iterable[Tensor], weight: float) -> None:
        """Replace gradients by their weighted sum over all processes.

        Args:
            parameters: those without a gradient are skipped; all processes must
                have gradients of the same ones.
            weight: of this process's gradients; over all processes they sum to 1.
        """
        if self.count == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads]) * weight
        dist.all_reduce(flat)
        for grad, part in zip(
            grads, flat.split([g.numel() for g in grads]), strict=True
        ):
            grad.copy_(part.view_as(grad))

    def total(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sums of scalars over all processes."""
        if self.count > 1:
            for name in sorted(values):
                dist.all_reduce(values[name])
        return values

    def from_first(self, value: T) -> T:
        """What the first process holds, for all; waits for it."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


@contextmanager
def repeatable(where: torch.device, bf16: bool) -> Iterator[None]:
    """Kernels that repeat exactly, and TF32 beside bfloat16, while a run is trained.

    Args:
        where: the device; on a CPU nothing has to change.
        bf16: whether the run computes in bfloat16.
    """
    if where.type != "cuda":
        yield
        return
    exact = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    precision = torch.get_float32_matmul_precision()
    # Only warned, attention would take the backward pass that does not repeat.
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before it is written; filling it is a kernel a tensor.
    memory.fill_uninitialized_memory = False
    if bf16:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(exact, warn_only=warns)
        memory.fill_uninitialized_memory = fills
        torch.set_float32_matmul_precision(precision)


def compiled(model: M) -> M:
    """A model through `torch.compile`, for batches whose lengths change."""
    # One of Inductor's analyses fails on changing sizes in torch 2.11, though its
    # setting says that it does not apply to them; where it is unknown it is not needed.
    name = "triton.coalesce_tiling_analysis"
    options: dict[str, Any] = {}
    if name in torch._inductor.list_options():
        options[name] = False
    return cast(M, torch.compile(model, dynamic=True, options=options))


def launched() -> bool:
    """Whether `torchrun` started this process with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this is the process that speaks to the user."""
    return not launched() or os.environ.get("RANK", "0") == "0"


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that `torchrun` started; alone without it.

    Args:
        device: of this process: NCCL connects CUDA devices, Gloo CPUs.
    """
    if not launched():
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """This process's GPU, where several processes share a machine with several GPUs."""
    if device == torch.device("cuda") and launched():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device
