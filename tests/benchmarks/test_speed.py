"""How much faster the package is than the straightforward computation.

    make bench

All forms run in one session, side by side, on one thread of the same machine. What is
kept are ratios of the time that the processor spent on them, which other programs
disturb little. They go to `data/benchmarks/speed.csv` and `scaling.csv`.
"""

import csv
import math
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from products import at_best
from workload import BATCH, FORMS, build, make_batch, task

from lnln.evaluation.plots import save_figure
from lnln.models import build_model
from lnln.models.lnln import LNLN, LNLNConfig

OUT = Path(__file__).parents[2] / "data" / "benchmarks"
#: kind, variant, lengths, text encoder, utterances.
CASES = [
    ("step", "paper", "full", "small", BATCH // 4),
    ("step", "paper", "mosi", "small", BATCH),
    ("step", "released", "full", "small", BATCH // 4),
    ("step", "released", "mosi", "small", BATCH // 4),
    ("step", "paper", "mosi", "bert-base", BATCH // 4),
    ("sweep", "paper", "full", "small", 4),
    ("sweep", "paper", "mosi", "small", 32),
    ("sweep", "released", "full", "small", 4),
]
torch.set_num_threads(1)
_rows: list[dict[str, Any]] = []
_growth: list[dict[str, Any]] = []


def seconds(work: Callable[[], object], rounds: int) -> float:
    """The shortest of some rounds."""
    best = math.inf
    for _ in range(rounds):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


@pytest.fixture(autouse=True)
def report() -> Iterator[None]:
    """Write once all is measured: a part of a table must not replace the whole."""
    yield
    if len(_rows) == len(CASES):
        write("speed.csv", _rows)
    if {row["axis"] for row in _growth} == set(GROWTH):
        write("scaling.csv", _growth)
        save_figure(growth_figure(), OUT / "scaling.png")


def write(name: str, rows: list[dict[str, Any]]) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with open(OUT / name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def agree(fast: Any, slow: Any) -> None:
    torch.testing.assert_close(
        torch.as_tensor(fast), torch.as_tensor(slow), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("kind", "variant", "lengths", "encoder", "count"),
    CASES,
    ids=["-".join(map(str, case[:4])) for case in CASES],
)
def test_against_the_straightforward_computation(
    benchmark: Any, kind: str, variant: str, lengths: str, encoder: str, count: int
) -> None:
    data = make_batch(count, lengths == "full")
    works = {
        form: task(kind, form, build(variant, encoder, form).train(), data)
        for form in FORMS
    }
    result = benchmark.pedantic(works["fast"], rounds=3, warmup_rounds=1)
    best = benchmark.stats.stats.min
    flops, products = at_best(works["fast"])
    slow = {}
    for form in ("plain", "padded"):
        agree(result, works[form]())
        slow[form] = seconds(works[form], 1)
    row = {
        "what": {"step": "training step", "sweep": "evaluation sweep"}[kind],
        "variant": variant,
        "lengths": {"full": "all longest", "mosi": "like MOSI"}[lengths],
        "text encoder": encoder,
        "times faster": round(slow["plain"] / best, 1),
        "times faster than padded": round(slow["padded"] / best, 1),
        "GFLOP": round(flops / 1e9, 1),
        "share of matrix speed": f"{products / best:.2f}",
        "times less memory": "",
        "machine": f"{platform.machine()}, one thread of the CPU",
    }
    if kind == "step" and encoder == "small":
        few, many = (peak(name, variant, lengths) for name in ("fast", "plain"))
        row["times less memory"] = round(many / few, 1)
    benchmark.extra_info |= row
    _rows.append(row)


def peak(name: str, variant: str, lengths: str) -> float:
    script = Path(__file__).with_name("peak.py")
    command = [sys.executable, str(script), name, variant, lengths]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


GROWTH = {
    "frames": (32, 64, 128, 256, 512),
    "batch": (4, 8, 16, 32, 64),
    "width d": (32, 64, 128, 256),
}


@pytest.mark.parametrize("axis", GROWTH)
def test_growth(benchmark: Any, axis: str) -> None:
    """Time of one embedding, forward and backward, along one axis at a time."""
    works = {}
    for size in GROWTH[axis]:
        at = {"frames": 128, "batch": 16, "width d": 128, axis: size}
        works[size] = {
            form: embedding_work(at["frames"], at["batch"], at["width d"], form)
            for form in ("fast", "plain")
        }
    benchmark.pedantic(works[GROWTH[axis][-1]]["fast"], rounds=3, warmup_rounds=1)
    base = None
    for size, work in works.items():
        work["fast"]()
        quick, slow = seconds(work["fast"], 3), seconds(work["plain"], 2)
        base = quick if base is None else base
        for name, value in (("plain", slow), ("fast", quick)):
            times = round(value / base, 2)
            _growth.append({"axis": axis, "size": size, "form": name, "times": times})


def embedding_work(
    frames: int, count: int, width: int, form: str
) -> Callable[[], None]:
    config = LNLNConfig(vision_length=frames, width=width)
    model = LNLN(config) if form == "plain" else build_model(config)
    embed = model.embedding["v"]
    sequence = torch.randn(count, frames, config.vision_width)
    mask = torch.ones(count, frames, dtype=torch.bool)

    def work() -> None:
        embed(sequence, mask).sum().backward()

    return work


def growth_figure() -> Any:
    figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    for ax, axis in zip(axes, GROWTH, strict=True):
        for name, colour, style in (
            ("plain", "#D55E00", "s--"),
            ("fast", "#0072B2", "o-"),
        ):
            rows = [r for r in _growth if r["axis"] == axis and r["form"] == name]
            sizes, times = [r["size"] for r in rows], [r["times"] for r in rows]
            ax.loglog(sizes, times, style, color=colour, label=name)
        ax.set(xlabel=axis)
        ax.set_xticks(GROWTH[axis], [str(s) for s in GROWTH[axis]])
        ax.minorticks_off()
    axes[0].set_ylabel("time / time of the smallest, fast")
    axes[0].legend()
    return figure
