"""Faults put into recordings, the clips that ship, and extractors by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import lnln
from lnln.cli.main import main
from lnln.data.files import data_dir
from lnln.features import Clip, extract, read_clips
from lnln.features.extraction import Extraction
from lnln.teaching.faults import Faults, damage, lose_words, word_middles

CLIPS = data_dir() / "clips"
FACE = """import numpy as np

class Face:
    name, version, parameters, columns = "light", 1, {}, ("mean",)

    def __call__(self, frames, times):
        light = frames.reshape(len(frames), -1)
        return light.mean(1, keepdims=True), np.ptp(light, axis=1) > 50

class Needy(Face):
    def __init__(self, what):
        pass
"""


class Light:
    """A number of each frame that shows something."""

    name, version, columns = "light", 1, ("mean",)
    parameters: dict[str, Any] = {}

    def __call__(
        self, frames: np.ndarray, times: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        light = frames.reshape(len(frames), -1)
        return light.mean(axis=1, keepdims=True), np.ptp(light, axis=1) > 50


@pytest.fixture(scope="module")
def clip() -> Clip:
    return next(c for c in read_clips(CLIPS / "clips.csv") if c.id == "test0126")


def extracted(clip: Clip) -> Extraction:
    return extract([clip], vision=Light(), encoder="simulated")


def test_a_copy_without_a_fault_has_the_same_features(
    clip: Clip, tmp_path: Path
) -> None:
    before = extracted(clip).dataset.test.batch
    after = extracted(damage(clip, Faults(), tmp_path)).dataset.test.batch
    for name in ("tokens", "audio", "vision", "audio_lengths", "vision_lengths"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name


def test_faults_become_gaps_and_leave_the_rest_alone(
    clip: Clip, tmp_path: Path
) -> None:
    stretch = (0.8, 1.6)  # rows 10 to 19
    lost = Faults(muted=stretch, covered=stretch, unheard=stretch)
    made = extracted(damage(clip, lost, tmp_path))
    old, new = extracted(clip).dataset.test.batch, made.dataset.test.batch
    n = int(new.vision_lengths)
    gone = torch.zeros(n, dtype=torch.bool)
    gone[10:20] = True
    assert torch.equal(~new.vision[0, :n].any(dim=1), gone)
    assert torch.equal(new.vision[0, :n][~gone], old.vision[0, :n][~gone])
    silent = ~new.audio[0, : int(new.audio_lengths)].any(dim=1)
    # Half of the frames of the rows beside may touch the fault.
    assert silent[10:20].all() and silent.sum() <= 12
    # Cepstra above the first do not even know the reference level.
    kept = ~silent & old.audio[0, : len(silent), 2].gt(-15)
    kept[8:22] = False
    assert kept.any()
    torch.testing.assert_close(
        new.audio[0, : len(silent)][kept][:, 5:],
        old.audio[0, : len(silent)][kept][:, 5:],
        atol=1e-3,
        rtol=0,
    )
    unknown = new.tokens.eq(new.special.unk).sum()
    middles = word_middles(clip.text or "", 26 * 0.08)
    assert 0 < unknown < len(middles)
    assert any("without a face" in note for note in made.notes)


def test_a_hiss_and_a_frozen_picture_are_taken_for_present(
    clip: Clip, tmp_path: Path
) -> None:
    always = (0.0, 100.0)
    made = extracted(damage(clip, Faults(hiss=always, frozen=always), tmp_path))
    old, new = extracted(clip).dataset.test.batch, made.dataset.test.batch
    assert new.audio[0, : int(new.audio_lengths)].any(dim=1).all()
    assert not torch.equal(new.audio, old.audio)
    n = int(new.vision_lengths)
    assert torch.equal(new.vision[0, :n], old.vision[0, :1].expand(n, -1))
    assert any("stands still" in note for note in made.notes)


def test_words_are_lost_where_they_are_said() -> None:
    assert word_middles("aaa aaa", 2.0).tolist() == [0.5, 1.5]
    assert lose_words("aaa aaa", (1.0, 2.0), 2.0) == "aaa [inaudible]"


def test_shipped_clips_are_small_balanced_and_in_three_containers() -> None:
    clips = read_clips(CLIPS / "clips.csv")
    assert sum(path.stat().st_size for path in CLIPS.iterdir()) < 1_000_000
    assert sum(clip.label or 0 for clip in clips) == pytest.approx(0)
    assert {clip.path.suffix for clip in clips} == {".mp4", ".mp3", ".wav"}
    assert {clip.split for clip in clips} == {"test"}


def test_stored_scores_of_faults_are_whole() -> None:
    scores = pd.read_csv(data_dir() / "compare" / "clips.csv")
    sizes = scores.groupby(["condition", "severity"]).id.nunique()
    assert (sizes == 200).all() and len(scores) == 200 * len(sizes)
    assert abs(scores.label.mean()) < 0.1


def test_shipped_model_reads_the_clips_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table = str(CLIPS / "clips.csv")
    made = ["features", table, "--out", "own.pkl", "--encoder", "simulated", "--quiet"]
    assert main(made) == 0
    said = ["predict", "spoken", "--data", "own.pkl", "--out", "said.csv"]
    assert main(said) == 0
    told = pd.read_csv("said.csv", index_col="id")
    assert told.loc["test0094", "note"] == "no voice and no face"
    assert (
        0 < told.loc["test0034", "audio_present"] < told.loc["test0034", "audio_rows"]
    )
    assert told.sentiment.between(-3, 3).all()
    # Features of another extractor are refused, and the reason is named.
    (tmp_path / "my_face.py").write_text(FACE)
    assert main([*made, "--vision", "my_face:Face"]) == 0
    batch = lnln.read_mmsa(tmp_path / "own.pkl", labelled=False).test.batch
    assert batch.vision.shape[2] == 1 and batch.vision.any()
    capsys.readouterr()
    assert main(said) != 0
    assert "drawn-face" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("light", "my_module:MyClass"),
        ("no_such:Face", "start where no_such.py lies"),
        ("my_face:Needy", "let the class need no arguments"),
    ],
)
def test_extractors_that_cannot_be_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    said: str,
) -> None:
    (tmp_path / "my_face.py").write_text(FACE)
    monkeypatch.chdir(tmp_path)
    table = str(CLIPS / "clips.csv")
    assert main(["features", table, "--out", "own.pkl", "--vision", name]) != 0
    assert said in capsys.readouterr().err


def test_a_clip_keeps_what_has_no_fault(clip: Clip, tmp_path: Path) -> None:
    silent = replace(clip, path=CLIPS / "test0094.mp4", text=None)
    copy = damage(silent, Faults(unheard=(0.0, 9.0), hiss=(0.0, 1.0)), tmp_path)
    made = extracted(copy)
    assert copy.text is None
    assert any("no sound" in note for note in made.notes)
