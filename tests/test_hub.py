"""Models are shared as folders and through the hub, offline: nothing is really sent."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import hub_mixin
from own_methods import WORDS

import lnln
from lnln.cli.main import main
from lnln.sharing import hub
from lnln.sharing.hub import HubError, Pretrained
from lnln.training.checkpoint import CheckpointError, read_tensors

FILES = ["README.md", "config.json", "model.safetensors", "record.json"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scored run on a file, in a folder whose name is nobody's business."""
    folder = tmp_path_factory.mktemp("secret-place")
    lnln.write_mmsa(lnln.simulate("mini", 3, 60), folder / "corpus.pkl")
    train = "train --epochs 1 --quiet --device cpu --method almt --scheme mosi"
    data = ["--data", str(folder / "corpus.pkl")]
    assert main([*train.split(), *data, "--out", str(folder / "run")]) == 0
    score = ["evaluate", str(folder / "run"), "--quiet", "--mask-seeds", "0", "1"]
    assert main([*score, "--device", "cpu"]) == 0
    return folder / "run"


def same_answers(ours: lnln.TrainedModel, theirs: lnln.TrainedModel) -> bool:
    batch = lnln.simulate("mini").test.batch
    return torch.equal(ours(batch).answer, theirs(batch).answer)


def test_a_folder_is_written_and_read_again(run: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    Pretrained.of_run(run).save_pretrained(shared)
    assert sorted(os.listdir(shared)) == sorted([*FILES, "robustness.csv"])
    again = Pretrained.from_pretrained(shared)
    before = lnln.load_model(run / "model.safetensors")
    assert same_answers(before, again.trained)
    assert same_answers(before, lnln.from_pretrained(shared))
    # What was read can be given on, and stays the same.
    again.save_pretrained(tmp_path / "again")
    for name in os.listdir(shared):
        assert (shared / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    # It can be scored like a run.
    data = ["--data", str(run.parent / "corpus.pkl"), "--device", "cpu", "--quiet"]
    assert main(["evaluate", str(shared), "--mask-seeds", "0", *data]) == 0


def test_no_file_tells_of_the_folders_of_who_shares(run: Path, tmp_path: Path) -> None:
    Pretrained.of_run(run).save_pretrained(tmp_path)
    assert b"secret-place" in (run / "model.safetensors").read_bytes()
    for path in tmp_path.iterdir():
        assert b"secret-place" not in path.read_bytes(), path.name
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["data"]["source"] == "corpus.pkl"
    _, header = read_tensors(tmp_path / "model.safetensors")
    assert header["provenance"]["data"]["source"] == "corpus.pkl"


def test_the_card_tells_what_the_record_says(run: Path, tmp_path: Path) -> None:
    Pretrained.of_run(run).save_pretrained(tmp_path)
    _, head, text = (tmp_path / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(head)
    assert facts["license"] == "mit" and facts["library_name"] == "lnln"
    record = json.loads((run / "record.json").read_text())
    assert record["data"]["sha256"] in text
    assert record["selection_rule"] in text
    assert "Training seeds: ALMT 1111." in text and "mask seeds 0, 1." in text
    assert "One training seed" in text and "MIT" in text
    scores = lnln.read_csv(run / "robustness.csv")
    used = (scores.method == "ALMT") & (scores.metric == "mae") & (scores.rate == 0.3)
    (line,) = (line for line in text.splitlines() if line.startswith("| 0.3 |"))
    mean, half = line.split("|")[2].split("±")
    a, b = scores[used].value
    assert float(mean) == pytest.approx((a + b) / 2, abs=6e-4)
    # Of two values: 12.706 standard errors, each half of their distance.
    assert float(half) == pytest.approx(12.706 * abs(a - b) / 2, abs=6e-4)


def test_licence_and_scores_may_be_missing(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("model.safetensors", "record.json"):
        shutil.copy(run / name, bare)
    record = json.loads((bare / "record.json").read_text())
    record["data"]["name"] = "mosi"
    (bare / "record.json").write_text(json.dumps(record))
    Pretrained.of_run(bare).save_pretrained(tmp_path / "a")
    text = (tmp_path / "a" / "README.md").read_text()
    assert "license: other\n" in text and "Not stated" in text
    assert "It was not scored." in text
    command = ["share", str(bare), "--out", str(tmp_path / "a"), "--licence"]
    assert main([*command, "cc-by-4.0"]) == 0
    # The card of before is replaced.
    assert "license: cc-by-4.0\n" in (tmp_path / "a" / "README.md").read_text()
    # Who gives it on cannot lose the licence.
    Pretrained.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert "license: cc-by-4.0\n" in (tmp_path / "b" / "README.md").read_text()


class Api:
    """Stands for the hub: keeps what it is given."""

    uploaded: dict[str, bytes] = {}

    def __init__(self, **_: Any) -> None:
        pass

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        Api.options = options
        return type("Repo", (), {"repo_id": repo_id})

    def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> str:
        files = Path(folder_path).iterdir()
        Api.uploaded = {path.name: path.read_bytes() for path in files}
        return f"hub:{repo_id}"


def test_what_is_uploaded_is_the_folder(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    assert main(["share", str(run), "--hub", "me/almt", "--private"]) == 0
    assert capsys.readouterr().out == "hub:me/almt\n"
    assert Api.options["private"] is True
    Pretrained.of_run(run).save_pretrained(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert Api.uploaded == written


def test_a_hub_that_cannot_be_reached_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(HubError, match="me/almt: the hub did not take it"):
        Pretrained.of_run(run).push_to_hub("me/almt")
    assert main(["export", "me/nowhere", "--out", "x.onnx"]) == 1
    error = capsys.readouterr().err
    assert "no such model on the hub" in error and error.count("\n") == 1


def test_a_model_of_the_hub_is_read_and_runs_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download is played by a folder of the cache."""
    asked: dict[str, Any] = {}
    cache = tmp_path / "cache"

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(cache)

    monkeypatch.setattr(hub, "snapshot_download", download)
    one_file = "huggingface_hub.hub_mixin.hf_hub_download"
    monkeypatch.setattr(one_file, lambda **asks: str(cache / asks["filename"]))
    work = tmp_path / "work"
    work.mkdir()
    (work / "my_shared.py").write_text(WORDS.replace("my_words", "my_shared"))
    monkeypatch.syspath_prepend(work)
    train = "train --epochs 1 --train-size 40 --quiet --device cpu"
    own = ["--method", "my_shared:Words", "--out", str(work / "run")]
    assert main([*train.split(), *own]) == 0
    Pretrained.of_run(work / "run").save_pretrained(cache)
    found = lnln.from_pretrained("me/words", revision="v1")
    assert asked["name"] == "me/words" and asked["revision"] == "v1"
    assert not any(name.endswith(".py") for name in asked["allow_patterns"])
    assert same_answers(found, lnln.load_model(work / "run" / "model.safetensors"))
    # Elsewhere nobody has imported its module, and it is not imported by itself.
    monkeypatch.delitem(sys.modules, "my_shared")
    with pytest.raises(CheckpointError, match="read my_shared.py there"):
        lnln.from_pretrained("me/words")
    sys.path.remove(str(work))
    with pytest.raises(CheckpointError, match="start where my_shared.py lies"):
        lnln.from_pretrained(cache)


def test_a_run_without_one_model_is_not_shared(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    record = json.loads((run / "record.json").read_text())
    record["selection"] = "paper"
    (tmp_path / "run" / "record.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="--selection validation"):
        Pretrained.of_run(tmp_path / "run")
    with pytest.raises(CheckpointError, match="no run"):
        Pretrained.of_run(tmp_path / "nowhere")


def test_a_run_is_not_written_over_itself(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["share", str(run), "--out", str(run)]) == 1
    assert "is the run itself" in capsys.readouterr().err
    assert main(["share", str(run), "--out", "x", "--private"]) == 1
    assert "--private is for --hub" in capsys.readouterr().err
