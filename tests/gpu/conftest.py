"""What the tests that need a GPU share.

    make gpu
    python -m pytest -m gpu tests/gpu

The variable LNLN_GPU_TEST_DEVICE names another device than "cuda". With "cpu" the
tests can be tried, at small sizes, where there is no GPU; what only a GPU has is
skipped. Nothing has to be installed beyond torch, transformers and pytest.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

# cuBLAS repeats exactly only with this set before its first use.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

NAME = os.environ.get("LNLN_GPU_TEST_DEVICE", "cuda")


@pytest.fixture(scope="session")
def device() -> str:
    """The device that is tested."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    if NAME.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA here (LNLN_GPU_TEST_DEVICE=cpu tries the tests without)")
    return NAME


@pytest.fixture
def cuda(device: str) -> str:
    """The device, for what only a GPU has."""
    if not device.startswith("cuda"):
        pytest.skip(f"{device} has nothing of the kind; this needs CUDA")
    return device


@pytest.fixture(autouse=True)
def as_precise_as_a_cpu() -> Iterator[None]:
    """Full float32: a GPU's TensorFloat-32 has three digits only."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    yield
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])


@dataclass(frozen=True)
class Sizes:
    """How much is computed: on a GPU enough to keep it busy, else little."""

    train: int
    few: int
    sweep: int


@pytest.fixture(scope="session")
def sizes(device: str) -> Sizes:
    on_gpu = device.startswith("cuda")
    return Sizes(96, 48, 128) if on_gpu else Sizes(40, 12, 2)


@pytest.fixture(scope="session")
def dataset(sizes: Sizes) -> Any:
    """The simulated corpus with small splits."""
    from dataclasses import replace

    from lnln import simulate

    full, some = simulate("mini", 5, sizes.train), torch.arange(sizes.few)
    small = {
        name: replace(
            full.splits[name],
            batch=full.splits[name].batch.select(some),
            ids=full.splits[name].ids[: sizes.few],
            raw_text=full.splits[name].raw_text[: sizes.few],
        )
        for name in ("valid", "test")
    }
    return replace(full, splits={"train": full.train, **small})
