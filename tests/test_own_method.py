"""A method of one's own: a class, named on the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from own_methods import WORDS

from lnln import read_csv
from lnln.cli.main import main
from lnln.data.errors import SettingsError
from lnln.models import method_class, title_of
from lnln.training.presets import preset_for

QUICK = ("--epochs", "1", "--train-size", "40", "--quiet", "--device", "cpu")


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lnln", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_class_of_ones_own_goes_all_the_way(tmp_path: Path) -> None:
    """Trained, evaluated, compared, exported, shared, reported."""
    (tmp_path / "my_words.py").write_text(WORDS)
    (tmp_path / "all.py").write_text(
        "from lnln.cli.main import main\n"
        "train = 'train --method my_words:Words --out run'.split()\n"
        f"train += {list(QUICK)}\n"
        "assert main(train) == 0\n"
        "assert main('evaluate run --quiet --mask-seeds 0'.split()) == 0\n"
        "assert main([*train, '--resume']) == 0\n"
        "compare = 'compare --methods lnln my_words:Words --out grid --jobs 1'\n"
        "compare += ' --seeds 1 --mask-seeds 0'\n"
        f"compare = [*compare.split(), *{list(QUICK)}]\n"
        "assert main(compare) == 0\n"
        "assert main('share run --out shared'.split()) == 0\n"
        "assert main('export shared --out words.onnx'.split()) == 0\n"
        "assert main('report grid/lnln-1 grid/my_words.Words-1'.split()) == 0\n"
    )
    command = [sys.executable, "all.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "Words on simulated data" in said
    assert "| Words |" in said and "| LNLN |" in said
    assert "Training seeds: LNLN 1; Words 1." in said
    assert (tmp_path / "shared" / "my_words.py").read_text() == WORDS
    assert (tmp_path / "words.onnx").stat().st_size > 10_000
    assert title_of("my_words:Words") == "Words"


def test_a_cluster_gets_the_class_with_the_work(tmp_path: Path) -> None:
    """Neither scheduler nor workers start where the module lies."""
    distributed = pytest.importorskip("distributed")
    (tmp_path / "my_words.py").write_text(WORDS)
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        done = run(
            tmp_path,
            *("compare", "--methods", "my_words:Words", "almt", "--seeds", "1"),
            *("--mask-seeds", "0", "--out", "grid", *QUICK),
            *("--cluster", cluster.scheduler_address),
        )
    assert done.returncode == 0, done.stderr
    scores = read_csv(tmp_path / "grid" / "scores.csv")
    assert {"Words", "ALMT"} <= set(scores["method"])
    record = json.loads((tmp_path / "grid/my_words.Words-1/record.json").read_text())
    assert record["finished"] and record["method"] == "my_words:Words"


CASES = [
    ('"my_words:Words"', '"elsewhere:Words"', 'method: ClassVar[str] = "mine_0:W'),
    ("    config_type = WordsConfig\n", "", "config_type: write a frozen dataclass"),
    ("def forward", "def forwards", "forward(self, batch): return Prediction"),
    ("def losses", "def loss", 'losses(self, step): return {"total"'),
    ("@dataclass(frozen=True)\n", "", "width would not be kept with a run"),
    (".squeeze(-1), {}", ", {}", "in shape (2, 1) where (2,) is needed; end with"),
    ('{"total"', '{"loss"', 'whose "total" is a scalar tensor'),
    (".abs().mean()}", ".abs()}", 'whose "total" is a scalar tensor'),
    (", {})", ", {}).answer", "no tensor `answer`; return Prediction"),
]


@pytest.mark.parametrize(("old", "new", "told"), CASES)
def test_what_a_class_lacks_is_said_with_the_remedy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    told: str,
) -> None:
    assert old in WORDS
    # Each case is a module of its own, since a process imports a module once.
    name = f"mine_{CASES.index((old, new, told))}"
    source = WORDS.replace(old, new).replace("my_words", name)
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    out = ["--out", str(tmp_path / "run")]
    assert main(["train", "--method", f"{name}:Words", *QUICK, *out]) == 1
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_all_that_is_missing_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_bare.py").write_text(
        "from lnln.models.method import Method\n\n\nclass Bare(Method):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError) as error:
        method_class("my_bare:Bare")
    for member in ("config_type: ", "forward(self, batch): ", "losses(self, step): "):
        assert member in str(error.value)


def test_what_cannot_be_a_method_is_refused_with_the_remedy() -> None:
    for name, words in (
        ("mult", "my_module:MyClass"),
        ("no_such_module:Method", "cannot be imported .* start where"),
        ("pathlib:Path", "is no lnln.models.method.Method"),
    ):
        with pytest.raises(SettingsError, match=words):
            method_class(name)
    assert preset_for("misa", "mini").model.method == "misa"
