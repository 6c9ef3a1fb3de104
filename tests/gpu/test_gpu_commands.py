"""The commands compute where they are told to, scoring included."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lnln import try_method
from lnln.cli.main import main
from lnln.evaluation.sweep import read_csv
from lnln.training.checkpoint import TrainedModel

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The devices on which predictions are made."""
    seen: set[str] = set()
    inner = TrainedModel._answers

    def watched(self: TrainedModel, part: Any, *rest: Any) -> Any:
        seen.update(p.device.type for p in self.model.parameters())
        found = inner(self, part, *rest)
        assert found is not None
        return found

    monkeypatch.setattr(TrainedModel, "_answers", watched)
    return seen


SMALL = ["--train-size", "40", "--epochs", "1", "--seeds", "1", "--mask-seeds", "0"]


def test_a_grid_is_scored_on_the_device(
    device: str, swept: set[str], tmp_path: Path
) -> None:
    command = ["compare", "--methods", "misa", "lnln"]
    rest = [*SMALL, "--quiet", "--jobs", "1", "--out", str(tmp_path)]
    assert main([*command, *rest, "--device", device]) == 0
    assert swept == {torch.device(device).type}
    scored = list(tmp_path.rglob("robustness.csv"))
    assert scored and not any(read_csv(path).empty for path in scored)


def test_a_run_is_evaluated_on_the_device(
    device: str, swept: set[str], tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    data = ["--train-size", "40", "--quiet", "--device", device]
    assert main(["train", "--epochs", "1", "--out", run, *data]) == 0
    assert main(["evaluate", run, "--linear", "--mask-seeds", "0", *data[2:]]) == 0
    assert swept == {torch.device(device).type}
    scores = read_csv(Path(run) / "robustness.csv")
    assert "linear baseline" in set(scores.method)


def test_a_method_is_tried_on_the_device(device: str, swept: set[str]) -> None:
    tried = try_method("misa", "simulated:mini", 1, 0, device=device)
    assert swept == {torch.device(device).type}
    assert next(tried.model.model.parameters()).device.type == "cpu"


def test_chapter_13_runs_on_the_device(device: str, tmp_path: Path) -> None:
    for package in ("papermill", "nbformat", "ipykernel"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    tool = ROOT / "book" / "_tools" / "chapters.py"
    command = [sys.executable, str(tool), "run", "13_training", "--out", str(tmp_path)]
    for name, value in (("device", device), ("epochs", "4"), ("utterances", "200")):
        command += ["-p", name, value]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "bit for bit: True" in (tmp_path / "13_training.ipynb").read_text("utf-8")
