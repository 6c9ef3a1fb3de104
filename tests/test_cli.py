"""The commands as a user types them."""

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lnln
import lnln.training.loop
from lnln import Preset, from_pretrained, open_data
from lnln.cli import train as cli_train
from lnln.cli.main import main
from lnln.training.run import disk_of


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
        (["train", "--encoder-width", "0"], "width 0"),
        (["train", "--encoder-depth", "0"], "depth 0"),
        (["train", "--encoder-dropout", "1"], "dropout 1.0"),
        (
            ["train", "--encoder", "data/encoder", "--encoder-width", "8"],
            "from scratch",
        ),
        (["train", "--epochs", "0"], "epochs 0"),
        (["train", "--batch-size", "0"], "batch size 0"),
        (["train", "--learning-rate", "-1"], "learning rate -1"),
        (["train", "--learning-rate", "nan"], "learning rate nan"),
        (["train", "--ema", "1"], "ema 1"),
        (["train", "--patience", "0"], "patience 0"),
        (["train", "--dropout", "2"], "dropout 2"),
        (["train", "--modalities", ""], "modalities"),
        (["train", "--method", "misa", "--dropout", "0.1"], "for LNLN"),
        (["train", "--method", "misa", "--variant", "released"], "for LNLN"),
        (["train", "--method", "misa", "--masks", "realised"], "for LNLN"),
        (["train", "--variant", "released", "--patience", "3"], "--patience"),
        (["train", "--variant", "paper+speed"], "paper+speed"),
        (["train", "--data", "x.pkl", "--data-seed", "3"], "data-seed"),
        (["train", "--train-size", "0"], "train_size"),
        (["train", "--data", "simulated:huge"], "huge"),
        (["compare", "--data", "x.pkl", "--data-seed", "3"], "data-seed"),
        (["compare", "--device", "tpu", "--epochs", "1", "--quiet"], "tpu"),
        (["reproduce", "table6", "--dataset", "SIMS"], "MOSI"),
        (["export", "mosi", "--out", "x.onnx"], "mini"),
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


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "run"
    size = ["--train-size", "16", "--epochs", "1", "--quiet"]
    assert main(["train", "--out", str(folder), *size]) == 0
    return folder


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--train-size", "100"], "--train-size needs --data"),
        (["--data-seed", "1"], "--data-seed needs --data"),
        (["--data", "x.pkl", "--data-seed", "1"], "simulated data only"),
        (["--mask-seeds", "released", "--corruption", "bursts"], "'random' only"),
        (["--device", "cuda:99"], "auto, cpu"),
    ],
)
def test_options_of_evaluate_that_would_be_ignored_are_refused(
    options: list[str],
    words: str,
    tiny_run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["evaluate", str(tiny_run), "--quiet", *options]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["train", "--seed", "-1"],
        ["data", "simulate", "x.pkl", "--seed", "x"],
        ["compare", "--mask-seeds", "0", "-3"],
        ["evaluate", "run", "--mask-seeds", "relased"],
    ],
)
def test_a_seed_is_a_whole_number(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(options)
    assert "no whole number" in capsys.readouterr().err


@pytest.mark.parametrize("width", [1, 8, 24, 32, 50, 64])
def test_an_encoder_from_scratch_may_have_any_width(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--train-size", "16", "--epochs", "1", "--quiet"]
    options = ["--encoder-width", str(width), "--out", str(tmp_path)]
    assert main(["train", *size, *options]) == 0
    encoder = lnln.load_model(tmp_path / "model.safetensors").preset.model.encoder
    assert encoder.width == width
    assert encoder.heads == {32: 2, 64: 4, 50: 2}.get(width, 1)


def test_a_dry_run_says_what_a_run_takes_on_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = ["train", "--train-size", "32", "--epochs", "2", "--out", str(run)]
    assert main([*options, "--dry-run"]) == 0
    assert not run.exists()
    said = capsys.readouterr().out
    kept: list[int] = []
    original = lnln.training.loop.save_state

    def save(state: Any) -> None:
        original(state)
        kept.append(sum(file.stat().st_size for file in run.iterdir()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lnln.training.loop, "save_state", save)
        assert main([*options, "--quiet", "--save-minutes", "0"]) == 0
    found = re.search(r"on disk ([\d.]+) MB while it trains, then ([\d.]+) MB", said)
    assert found is not None
    for told, bytes_ in zip(found.groups(), kept, strict=True):
        assert float(told) == pytest.approx(bytes_ / 1e6, rel=0.15)


def test_the_size_of_a_run_with_bert_needs_no_hub() -> None:
    disk = disk_of(lnln.PRESETS["mosi"], "mosi")
    assert disk.training == pytest.approx(1.39e9 + 0.46e9, rel=0.02)
    assert disk.finished == pytest.approx(2 * 0.46e9, rel=0.02)


def test_python_m_lnln_is_the_command() -> None:
    command = [sys.executable, "-m", "lnln", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("lnln ")


@pytest.mark.parametrize("fault", [ValueError, OSError, ImportError, KeyError])
def test_faults_of_the_program_keep_their_traceback(
    fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise fault("a slip in our own code")

    monkeypatch.setattr("lnln.cli.files.data.describe", broken)
    monkeypatch.setattr("lnln.cli.files.data.read_mmsa", lambda *_, **__: None)
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
    shipped = from_pretrained("mini")
    assert seen == [shipped.preset, shipped.provenance["data"]["source"]]
