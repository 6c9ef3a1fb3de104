"""A method of one's own: a class, named on the command line."""

import subprocess
import sys
from pathlib import Path

import pytest

from lnln.data.errors import SettingsError
from lnln.models import method_class, title_of
from lnln.training.presets import preset_for

SOURCE = """
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lnln.models.method import Method, ModelConfig, Prediction


@dataclass(frozen=True)
class WordsConfig(ModelConfig):
    method: ClassVar[str] = "my_words:Words"
    width: int = 16


class Words(Method):
    config_type = WordsConfig

    def __init__(self, config, architecture=None):
        super().__init__(config, architecture)
        self.head = nn.Linear(self.text_encoder.width, 1)

    def forward(self, batch):
        text = self.text_encoder(batch.tokens, batch.token_lengths)
        return Prediction(self.head(text[:, 0]).squeeze(-1), {})

    def losses(self, step):
        output = step.forward(step.erased.batch)
        return {"total": (output.sentiment - step.labels).abs().mean()}
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lnln", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_class_of_ones_own_is_trained_scored_and_named(tmp_path: Path) -> None:
    (tmp_path / "my_words.py").write_text(SOURCE)
    quick = ("--epochs", "1", "--train-size", "40", "--quiet", "--out", "run")
    trained = run(tmp_path, "train", "--method", "my_words:Words", *quick)
    assert trained.returncode == 0, trained.stderr
    scored = run(tmp_path, "evaluate", "run", "--quiet", "--mask-seeds", "0")
    assert scored.returncode == 0, scored.stderr
    assert scored.stdout.startswith("Words on simulated data")
    again = run(tmp_path, "train", "--method", "my_words:Words", *quick, "--resume")
    assert again.returncode == 0, again.stderr
    compared = run(
        tmp_path,
        *("compare", "--methods", "lnln", "my_words:Words", "--seeds", "1"),
        *("--mask-seeds", "0", "--epochs", "1", "--train-size", "40", "--quiet"),
        *("--out", "grid"),
    )
    assert compared.returncode == 0, compared.stderr
    assert "| Words |" in compared.stdout and "| LNLN |" in compared.stdout
    assert title_of("my_words:Words") == "Words"


def test_what_cannot_be_a_method_is_refused_with_the_remedy(tmp_path: Path) -> None:
    wrong = SOURCE.replace("my_words:Words", "elsewhere:Words")
    (tmp_path / "my_words.py").write_text(wrong)
    done = run(tmp_path, "train", "--method", "my_words:Words", "--dry-run")
    assert done.returncode == 1 and "write method = 'my_words:Words'" in done.stderr
    for name, words in (
        ("mult", "my_module:MyMethod"),
        ("no_such_module:Method", "cannot be imported"),
        ("pathlib:Path", "is no lnln.models.method.Method"),
    ):
        with pytest.raises(SettingsError, match=words):
            method_class(name)
    assert preset_for("misa", "mini").model.method == "misa"
