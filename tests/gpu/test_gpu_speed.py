"""How fast the package is on a GPU, against the straightforward computation.

Both forms run in one session on the same card. What is measured goes to
`data/benchmarks/gpu.csv`, which the results page shows; a trial on a CPU is not kept.
"""

import csv
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.cost import Counter
from benchmarks.workload import BATCH, MASK_SEEDS, build, make_batch, task

from lnln.missing.erasing import TEST_RATES
from lnln.training.devices import repeatable

pytestmark = pytest.mark.gpu
OUT = Path(__file__).parents[2] / "data" / "benchmarks" / "gpu.csv"
CONDITIONS = len(TEST_RATES) * len(MASK_SEEDS)
#: kind, lengths, text encoder, precision.
CASES = [
    ("step", "full", "small", "float32"),
    ("step", "mosi", "small", "float32"),
    ("step", "mosi", "bert-base", "float32"),
    ("step", "mosi", "bert-base", "bfloat16"),
    ("sweep", "full", "small", "float32"),
    ("sweep", "mosi", "small", "float32"),
    ("sweep", "mosi", "bert-base", "float32"),
]


@pytest.fixture(scope="module")
def rows(
    device: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[dict[str, Any]]]:
    """Told at once, and written when all is measured."""
    found: list[dict[str, Any]] = []
    yield found
    on_gpu = device.startswith("cuda")
    path = OUT if on_gpu else tmp_path_factory.mktemp("speed") / OUT.name
    if len(found) == len(CASES):
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, found[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)


def seconds(work: Callable[[], object], device: str, rounds: int) -> float:
    """The shortest of some rounds; one to warm up came before."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    times = []
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


def megabytes(work: Callable[[], object], device: str) -> float | None:
    """The most memory beyond model and data."""
    if not device.startswith("cuda"):
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


@pytest.fixture(scope="module")
def peak(device: str) -> dict[str, float]:
    """FLOP a second of a large product of matrices, by precision, on this card."""
    size = 8192 if device.startswith("cuda") else 256
    found = {}
    for name in ("float32", "bfloat16"):
        dtype = getattr(torch, name)
        a = torch.randn(size, size, device=device).to(dtype)
        a @ a
        found[name] = 2 * size**3 / seconds(lambda a=a: a @ a, device, 5)  # type: ignore[misc]
    return found


def flops(work: Callable[[], object]) -> int:
    with Counter() as counter:
        work()
    return counter.flops


def machine(device: str) -> str:
    on_gpu = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    return f"{name}, torch {torch.__version__.split('+')[0]}"


@pytest.mark.parametrize(
    ("kind", "lengths", "encoder", "precision"), CASES, ids=map("-".join, CASES)
)
def test_against_the_straightforward_computation(
    kind: str,
    lengths: str,
    encoder: str,
    precision: str,
    device: str,
    sizes: Any,
    rows: list[dict[str, Any]],
    peak: dict[str, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_gpu = device.startswith("cuda")
    count = BATCH if kind == "step" and on_gpu else sizes.sweep
    data = make_batch(count, lengths == "full").to(device)

    def timed(name: str) -> tuple[Any, float, float | None, int]:
        model = build("paper", encoder if on_gpu else "small", name).to(device)
        inner = task(kind, name, model.train(), data)
        half, training = precision == "bfloat16", kind == "step"

        def work() -> Any:
            where = torch.device(device).type
            with (
                # Training asks for repeatable kernels, scoring does not.
                repeatable(torch.device(device), half) if training else nullcontext(),
                torch.autocast(where, torch.bfloat16) if half else nullcontext(),
            ):
                return inner()

        result = work()
        return (
            torch.as_tensor(result).cpu(),
            seconds(work, device, 2 if kind == "sweep" and name == "plain" else 5),
            megabytes(work, device),
            flops(work) if name == "fast" else 0,
        )

    fast, slow = timed("fast"), timed("plain")
    tolerance = 1e-4 if precision == "float32" else 3e-2
    torch.testing.assert_close(fast[0], slow[0], rtol=tolerance, atol=tolerance)
    utterances = count if kind == "step" else count * CONDITIONS
    row = {
        "what": kind,
        "lengths": {"full": "all longest", "mosi": "like MOSI"}[lengths],
        "encoder": encoder,
        "precision": precision,
        "utterances per second": round(utterances / fast[1]),
        "share of peak": f"{fast[3] / fast[1] / peak[precision]:.3f}",
        "MB": "" if fast[2] is None else round(fast[2]),
        "faster": round(slow[1] / fast[1], 1),
        # A sweep takes what memory makes it fast, and halves where that lacks.
        "less memory": (
            round(slow[2] / fast[2], 1)
            if kind == "step" and fast[2] is not None and slow[2] is not None
            else ""
        ),
        "machine": machine(device),
    }
    rows.append(row)
    with capsys.disabled():
        print(row)
    # A fast card waits for kernels to be started, in both forms of a step alike; what
    # the package saves there is memory. A sweep it starts at once.
    if on_gpu and lengths == "mosi":
        assert row["faster"] > (0.5 if kind == "step" else 1)
    if on_gpu and kind == "step":
        assert row["less memory"] > 1
