"""The commands as a user types them."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from lnln import Preset, cli_train, load_pretrained, open_data
from lnln.cli import main


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    commands = ([], ["doctor"], ["data"], ["data", "check"], ["data", "simulate"])
    for command in (*commands, ["train"], ["evaluate"]):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--help"])
        assert stop.value.code == 0
        assert "usage: lnln" in capsys.readouterr().out


def test_simulate_check_train_evaluate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = tmp_path / "corpus.pkl", tmp_path / "run"
    assert main(["data", "simulate", str(file), "--size", "mini"]) == 0
    assert main(["data", "check", str(file)]) == 0
    report = capsys.readouterr().out
    assert "1,000" in report.replace("1000", "1,000") and "train" in report
    quick = ["--epochs", "1", "--quiet", "--device", "cpu"]
    assert main(["train", "--data", str(file), "--out", str(run), *quick]) == 0
    assert "best validation MAE" in capsys.readouterr().out
    options = ["--mask-seeds", "0", "--quiet", "--device", "cpu", "--modalities"]
    assert main(["evaluate", str(run), "--linear", *options]) == 0
    printed = capsys.readouterr().out
    assert "epoch chosen by: best epoch by validation MAE" in printed
    assert "simulated" in printed
    with open(run / "robustness.csv", newline="") as rows:
        methods = {row["method"] for row in csv.DictReader(rows)}
    assert methods == {"LNLN", "Bayes limit", "majority floor", "linear baseline"}
    assert (run / "robustness.png").is_file()


def test_language_only_run_is_named_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--out", str(tmp_path), "--train-size", "64", "--epochs", "1", "--quiet"]
    assert main(["train", "--modalities", "l", *run]) == 0
    quiet = ["--mask-seeds", "0", "--quiet"]
    assert main(["evaluate", str(tmp_path), *quiet]) == 0
    assert "LNLN (l only)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["data", "check", "missing.pkl"], "missing.pkl"),
        (["evaluate", "no_such_run"], "lnln train"),
        (["train", "--preset", "mosi"], "--data"),
        (["train", "--modalities", "lx", "--quiet", "--epochs", "1"], "modalities"),
        (["train", "--data", "x.pkl", "--train-size", "3"], "train-size"),
        (["train", "--device", "cuda:99"], "auto, cpu"),
        (["train", "--device", "tpu"], "auto, cpu"),
    ],
)
def test_mistakes_are_one_line_on_stderr(
    command: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("lnln: ") and words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("fault", [ValueError, OSError, ImportError, KeyError])
def test_faults_of_the_program_keep_their_traceback(
    fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise fault("a slip in our own code")

    monkeypatch.setattr("lnln.cli_data.describe", broken)
    monkeypatch.setattr("lnln.cli_data.read_mmsa", lambda *_, **__: None)
    with pytest.raises(fault, match="a slip"):
        main(["data", "check", "any.pkl"])


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "corpus.pkl"
    assert main(["data", "simulate", str(out), "--size", "mini"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_data_specifications() -> None:
    assert open_data("simulated").test.batch.audio.shape[1] == 48
    assert open_data("simulated", "mosi", 4).test.batch.audio.shape[1] == 375
    assert open_data("simulated:mini", "mosi", 4).test.batch.audio.shape[1] == 48
    with pytest.raises(ValueError, match="size"):
        open_data("simulated:huge")


def test_documented_command_is_that_of_the_shipped_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readme = Path(__file__).resolve().parents[1] / "data" / "README.md"
    found = re.search(
        r"```\nlnln (train --preset mini.*?)```", readme.read_text(), re.S
    )
    assert found is not None
    seen: list[Any] = []

    def record(preset: Preset, dataset: Any, *_: Any, **__: Any) -> None:
        seen.extend((preset.fit_to(dataset), dataset.source))
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_train, "train", record)
    assert main(found[1].replace("\\\n", " ").split()) == 130
    shipped = load_pretrained("mini")
    assert seen == [shipped.preset, shipped.provenance["data"]["source"]]
