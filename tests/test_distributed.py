"""Two processes of torchrun train what one process does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lnln.training.devices import Processes

COMMAND = "train --preset mini --train-size 70 --epochs 2 --seed 5 --quiet --device cpu"


def lnln(
    folder: Path, *options: str, processes: int = 1
) -> subprocess.CompletedProcess[str]:
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    launch += ["--master-addr", "127.0.0.1", "--master-port", "29517"]
    return subprocess.run(
        [
            sys.executable,
            *(launch if processes > 1 else []),
            *("-m", "lnln"),
            *(*COMMAND.split(), "--out", str(folder), *options),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_every_utterance_has_one_part_and_weights_sum_to_one() -> None:
    for size in (1, 2, 3, 7, 64):
        parts = [Processes(rank, 3).part(size) for rank in range(3)]
        assert sum(weight for _, weight in parts) == pytest.approx(1)
        assert all(len(places) for places, _ in parts)
        if size >= 3:
            joined = torch.cat([places for places, _ in parts])
            assert joined.tolist() == list(range(size))


def compare(tmp_path: Path, *options: str) -> list[dict[str, Any]]:
    """Train with one process and with two; the records."""
    for name, processes in (("one", 1), ("two", 2)):
        done = lnln(tmp_path / name, *options, processes=processes)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("best validation MAE") == 1
    paths = (tmp_path / name / "record.json" for name in ("one", "two"))
    records = [json.loads(path.read_text("utf-8")) for path in paths]
    assert [record["processes"] for record in records] == [1, 2]
    return records


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    # 70 utterances in batches of 64: the last batch has 6.
    one, two = compare(tmp_path, "--method", "almt", "--encoder-dropout", "0")
    for entry, other in zip(one["history"], two["history"], strict=True):
        assert entry == pytest.approx(other, rel=1e-4)
    heads = [
        load_file(tmp_path / name / "model.safetensors")["model.head.weight"]
        for name in ("one", "two")
    ]
    torch.testing.assert_close(*heads, atol=1e-4, rtol=1e-3)


def test_lnln_differs_by_its_reconstruction_loss_only(tmp_path: Path) -> None:
    one, two = compare(tmp_path, "--dropout", "0", "--encoder-dropout", "0")
    first, other = one["history"][0], two["history"][0]
    for name in ("sentiment", "completeness", "adversarial"):
        assert first[f"train_{name}"] == pytest.approx(other[f"train_{name}"], rel=1e-3)
    assert first["train_reconstruction"] == pytest.approx(
        other["train_reconstruction"], rel=0.05
    )


def test_losses_over_a_batch_are_not_shared(tmp_path: Path) -> None:
    done = lnln(tmp_path / "run", "--method", "mmim", processes=2)
    assert done.returncode != 0
    assert "one process must train it" in done.stderr
