"""Clips of one's own: what a file tells of its features, predictions, real gaps."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import lnln
from lnln import (
    DataError,
    Dataset,
    TrainedModel,
    from_pretrained,
    predict,
    read_mmsa,
    simulate,
    utterance,
    write_mmsa,
)
from lnln.cli.main import main
from lnln.data.batch import Batch, SpecialTokens
from lnln.data.files import data_dir, sha256_of
from lnln.data.mmsa.layouts.features import PUBLISHED, fingerprint
from lnln.data.mmsa.tokenizer import load_tokenizer
from lnln.evaluation.describe import on_top
from lnln.evaluation.predict import COLUMNS
from lnln.missing.corruption import corrupt_to_train
from lnln.missing.erasing import draw_uniforms, erase
from lnln.missing.gaps import shares_present
from lnln.models.lnln import LNLN
from lnln.training.checkpoint import save_model

COUNT = 12
VOCABULARY = sha256_of(data_dir() / "corpus" / "vocab.txt")
SENTENCE = "I thought the movie was really wonderful"


def described(**audio: Any) -> dict[str, Any]:
    """The dict `features` of made clips."""
    heard = {
        "extractor": "made",
        "version": 1,
        "parameters": {"hop": 320, "window": 640},
        "columns": ["f0", "voicing", "level", "zcr", "mfcc0"],
        "rate": 12.5,
        "libraries": {"torch": "2.13.0"},
    } | audio
    seen = {"extractor": "drawn", "version": 1, "columns": [], "rate": 12.5}
    return {
        "format": 1,
        "made_by": "lnln 0.1.0",
        "padding": "right",
        "text": {"tokenizer": "simulated", "vocab_sha256": VOCABULARY},
        "audio": {**heard, "fingerprint": fingerprint(heard)},
        "vision": {**seen, "fingerprint": fingerprint(seen)},
    }


@pytest.fixture(scope="module")
def clips() -> Dataset:
    """Twelve clips without labels, the first four rows of sound missing in clip 0."""
    corpus = simulate("mini", 0, 8)
    part = corpus.test.select(torch.arange(COUNT))
    audio = part.batch.audio.clone()
    audio[0, :4] = 0
    nothing = torch.full((COUNT,), float("nan"))
    part = replace(part, batch=replace(part.batch, audio=audio, labels=nothing))
    return replace(corpus, splits={"test": part})


Write = Callable[..., Path]


@pytest.fixture
def write(clips: Dataset, tmp_path: Path) -> Write:
    """Write the clips, changed, as own.pkl; `features` is what the file says."""

    def make(features: dict[str, Any] | None = None, **changed: Any) -> Path:
        batch = replace(clips.test.batch, **changed)
        data = replace(clips, splits={"test": replace(clips.test, batch=batch)})
        write_mmsa(data, tmp_path / "own.pkl", features)
        return tmp_path / "own.pkl"

    return make


def trained_on(**data: Any) -> TrainedModel:
    """The shipped model, as if it had been trained on a file of clips."""
    mini = from_pretrained("mini")
    origin = {**mini.provenance["data"], "name": "own", "sha256": "0" * 64, **data}
    return replace(mini, provenance={**mini.provenance, "data": origin})


def test_a_file_without_labels_is_read_as_it_was_written(write, clips):
    data = read_mmsa(write(described()), labelled=False)
    assert (data.name, list(data.splits), data.mended) == ("own", ["test"], ())
    assert data.features == described() and data.test.batch.gaps
    there = data.test.batch
    assert there.labels.isnan().all()
    # One spare row: a longest clip that begins with a gap is not padded on the left.
    assert there.audio.shape[1] == int(there.audio_lengths.max()) + 1
    assert torch.equal(there.trim().audio, clips.test.batch.trim().audio)
    assert torch.equal(there.audio_lengths, clips.test.batch.audio_lengths)
    with pytest.raises(DataError, match="'train' is missing"):
        read_mmsa(write(described()))


def test_a_gap_in_front_of_the_longest_clip_stays_there(write, clips):
    longest = int(clips.test.batch.vision_lengths.argmax())
    vision = clips.test.batch.vision.clone()
    vision[:, :4] = 0
    path = write(described(), vision=vision)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_mmsa(path, labelled=False).test.batch
    assert not found.vision[longest, :4].any() and found.vision[longest, 4].any()
    with pytest.warns(UserWarning, match="padded on the left"):
        read_mmsa(write({}, vision=vision[:, : vision.shape[1]]), labelled=False)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": 2}, "has format 2, and not 1"),
        ({"audio": "plain"}, "'audio' is no dict"),
        ({"note": {1: "a"}}, "keys that are no strings"),
        ({"note": float("nan")}, "holds a float that is no value of JSON"),
        ({"note": b"a"}, "holds a bytes that is no value of JSON"),
        ({"audio": {**described()["audio"], "rate": 25.0}}, "fingerprint of 'audio'"),
        ({"audio": {"columns": ["f0"]}}, "names 1 columns of audio, the rows have 5"),
    ],
)
def test_a_faulty_description_is_refused(write, change, match):
    with pytest.raises(DataError, match=match):
        read_mmsa(write({**described(), **change}), labelled=False)


def test_a_fingerprint_is_of_the_description_and_not_of_the_libraries():
    one = described()["audio"]
    turned = dict(reversed(one.items())) | {"libraries": {"torch": "1.0"}}
    turned["parameters"] = dict(reversed(one["parameters"].items()))
    assert fingerprint(turned) == fingerprint(one) == one["fingerprint"]
    other = {**one, "parameters": {**one["parameters"], "hop": 160}}
    assert fingerprint(other) != fingerprint(one)


def test_check_tells_how_features_were_made_and_what_is_missing(write, capsys):
    assert main(["data", "check", str(write(described()))]) == 0
    shown = capsys.readouterr().out
    assert "audio parameters hop: 320" in shown and "for lnln predict only" in shown
    assert "missing (share of words and rows)" in shown


def test_predictions_and_what_they_rest_on(write, clips, tmp_path, capsys):
    save_model(tmp_path / "model.safetensors", trained_on(features=described()))
    out = tmp_path / "predictions.csv"
    arguments = ["predict", str(tmp_path), "--data", str(write(described()))]
    assert main([*arguments, "--out", str(out), "--device", "cpu"]) == 0
    assert "warning" not in capsys.readouterr().out
    table = pd.read_csv(out)
    assert tuple(table.columns) == COLUMNS and len(table) == COUNT
    assert tuple(table["id"]) == clips.test.ids
    said = from_pretrained("mini")(clips.test.batch)
    for column, values in (
        ("sentiment", said.sentiment),
        ("completeness", said.completeness),
    ):
        found = torch.tensor(table[column].to_numpy(), dtype=torch.float32)
        torch.testing.assert_close(found, values, atol=2e-4, rtol=0)
    assert (table["spread"] > 0).all() and (table["cut"] == 0).all()
    first = table.iloc[0]
    assert first["audio_rows"] - first["audio_present"] == 4
    assert (table["words"] == clips.test.batch.token_lengths.numpy() - 2).all()
    about = json.loads(out.with_suffix(".json").read_text("utf-8"))
    assert about["data"]["features"] == about["trained_on"]["features"]
    assert about["warnings"] == []


def test_every_way_to_name_a_run(tmp_path):
    save_model(tmp_path / "model-mae.safetensors", from_pretrained("mini"))
    ways = ["mini", tmp_path, tmp_path / "model-mae.safetensors"]
    sizes = [lnln.from_pretrained(way).model.config for way in ways]
    assert sizes[0] == sizes[1] == sizes[2]
    with pytest.raises(lnln.CheckpointError, match="no shipped model of this name"):
        lnln.from_pretrained("nobody")


def test_other_widths_are_refused(write, clips):
    wide = clips.test.batch.mask("a")[..., None].float().expand(-1, -1, 17)
    features = described(columns=[], extractor="plain")
    path = write(features, audio=wide)
    with pytest.raises(DataError) as caught:
        predict(trained_on(name="mosi"), path)
    text = str(caught.value)
    assert "audio of 5 columns (CMU-MOSI, COVAREP), own.pkl has 17 (plain 1)" in text
    assert "no conversion exists" in text and "FACET is not to be had" in text
    # Of what is missing everywhere no column is read.
    answers = predict(trained_on(features=features), write(features, audio=wide * 0))
    assert (answers.table["audio_present"] == 0).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"parameters": {"hop": 160, "window": 640}}, "parameter hop is 320 .* 160"),
        ({"version": 2}, "version is 1 in the model and 2 in own.pkl"),
        ({"columns": ["f0", "voicing", "level", "zcr", "x"]}, "column 4 .* 'mfcc0'"),
    ],
)
def test_features_made_otherwise_are_refused_unless_asked(write, change, match):
    model, path = trained_on(features=described()), write(described(**change))
    with pytest.raises(DataError, match=match):
        predict(model, path)
    answers = predict(model, path, other_features=True)
    assert "may mean nothing" in answers.warnings[0]


def test_warnings_where_features_cannot_be_compared(write):
    def warned(path: Path, **data: Any) -> str:
        return "\n".join(predict(trained_on(**data), path).warnings)

    assert warned(write(described()), features=described()) == ""
    newer = write(described(libraries={"torch": "3.0"}))
    assert "torch 2.13.0 for the model" in warned(newer, features=described())
    told = write(described())
    assert "the model does not say how features were made" in warned(told)
    published = next(sha for sha, name in PUBLISHED.items() if "MOSI" in name)
    assert "are not the same features" in warned(told, sha256=published)
    assert warned(told, sha256=sha256_of(told)) == ""
    silent = write({})
    assert "own.pkl does not say" in warned(silent, features=described())


def test_ids_of_another_vocabulary_are_refused(write, clips):
    other = described()
    other["text"]["vocab_sha256"] = "0" * 64
    for model in (trained_on(features=described()), from_pretrained("mini")):
        with pytest.raises(DataError, match="of another vocabulary"):
            predict(model, write(other))
    special = {"pad": 1, "unk": 3, "cls": 0, "sep": 2}
    with pytest.raises(DataError, match="ids of another vocabulary mean other words"):
        predict(trained_on(special_tokens=special), write(described()))
    assert clips.test.batch.special == SpecialTokens()


def test_long_clips_are_cut_behind(write, clips):
    batch = clips.test.batch
    long = batch.audio.repeat(1, 2, 1)
    long[:, 48:] = 1e6  # what is cut is not looked at
    lengths = batch.audio_lengths.clone()
    lengths[0] = 96
    words = batch.tokens.repeat(1, 2)
    words[1] = words[1, 1]
    words[1, 0] = batch.special.cls
    counted = batch.token_lengths.clone()
    counted[1] = 52
    path = write(
        described(),
        audio=long * (torch.arange(96) < lengths[:, None])[..., None],
        audio_lengths=lengths,
        tokens=words,
        token_lengths=counted,
    )
    answers = predict(trained_on(features=described()), path)
    assert any("2 of 12 clips are longer" in w for w in answers.warnings)
    cut = answers.table["cut"]
    assert cut[0] == cut[1] == 0.5 and (cut[2:] == 0).all()
    # [SEP] ends a sentence that was cut, too: 24 words and [CLS] fill the 26 places.
    assert answers.table["words_present"][1] == 24


def test_shifted_columns_are_named(write, clips):
    model = trained_on(features=described())
    audio = clips.test.batch.audio.clone()
    there = audio.ne(0).any(dim=-1)
    audio[..., 1] += 20 * there
    (warning,) = predict(model, write(described(), audio=audio)).warnings
    assert "audio looks unlike" in warning and "voicing, mean off by" in warning
    flat = clips.test.batch.audio * torch.tensor([1.0, 1, 1, 0.3, 1])
    (warning,) = predict(model, write(described(), audio=flat)).warnings
    assert "zcr, mean off" in warning and "level" not in warning
    blind = replace(model, standardizer=None)
    (warning,) = predict(blind, write(described())).warnings
    assert "nothing can be said of a shift" in warning


def test_a_few_clips_of_one_source_show_no_shift(clips):
    model = from_pretrained("mini")
    for count in (1, 3, 5, COUNT):
        few = clips.test.select(torch.arange(count))
        assert predict(model, few).warnings == ()


def test_notes_tell_what_is_missing(write, clips):
    batch = clips.test.batch
    audio, vision = batch.audio.clone(), batch.vision.clone()
    tokens = batch.tokens.clone()
    audio[:2], vision[1:3] = 0, 0
    tokens[1, 1 : batch.token_lengths[1] - 1] = batch.special.unk
    path = write(described(), audio=audio, vision=vision, tokens=tokens)
    table = predict(trained_on(features=described()), path).table
    assert list(table["note"].astype(str)[:4]) == [
        "no voice",
        "nothing is present: the answer is close to a constant",
        "no face",
        "",
    ]
    assert table["words_present"][1] == 0 < table["words"][1]
    assert table["completeness"][1] < 0.3 < table["completeness"][3]


def test_a_split_that_is_not_there(write, capsys):
    arguments = ["predict", "mini", "--data", str(write(described())), "--out", "x.csv"]
    assert main([*arguments, "--split", "train"]) == 1
    assert "has no split 'train'; choose from test" in capsys.readouterr().err
    assert main(arguments[:-2]) == 1
    assert "--out predictions.csv" in capsys.readouterr().err


def test_a_typed_sentence(capsys):
    tokenizer = load_tokenizer("simulated")
    assert tokenizer.encode([SENTENCE, "xyzzy"]) == [
        [101, 168, 248, 243, 190, 258, 218, 269, 102],
        [101, 100, 102],
    ]
    assert main(["predict", "mini", "--text", SENTENCE]) == 0
    shown = capsys.readouterr().out
    assert "sentiment +1." in shown and "spread" in shown
    assert "no voice and no face" in shown and "7 of 7 words" in shown
    assert "simulated language of 168 words" in shown and "[UNK]" not in shown
    assert main(["predict", "mini", "--text", "the xyzzy was terrible"]) == 0
    shown = capsys.readouterr().out
    assert "sentiment -" in shown and "read as [UNK]: xyzzy" in shown


def test_single_clips_in_three_lines(clips):
    model = from_pretrained("mini")
    batch = clips.test.batch.select(torch.tensor([3])).trim()
    clip = utterance(model, clips.test.raw_text[3], batch.audio[0], batch.vision[0])
    answers = predict(model, clip)
    assert torch.equal(clip.batch.tokens, batch.tokens)
    expected = float(model(batch).sentiment)
    assert answers.table["sentiment"][0] == pytest.approx(expected, abs=1e-3)
    with pytest.raises(DataError, match=r"expected \(T, 5\) rows"):
        utterance(model, "a", audio=torch.ones(4, 6))


def gappy(clips: Dataset, gaps: bool) -> Batch:
    """The clips with half of the words of clip 0 unclear."""
    batch = clips.test.batch
    tokens = batch.tokens.clone()
    words = int(batch.token_lengths[0]) - 2
    tokens[0, 1 : 1 + words // 2] = batch.special.unk
    return replace(batch, tokens=tokens, gaps=gaps).trim()


def test_completeness_is_learnt_from_the_words_that_are_there(clips):
    chance = torch.Generator().manual_seed(0)
    rates = torch.full((COUNT, 3), 0.5)
    for gaps in (False, True):
        batch = gappy(clips, gaps)
        uniforms = draw_uniforms(batch, torch.Generator().manual_seed(1))
        erased = corrupt_to_train("redrawn", batch, rates, uniforms, chance)
        there = shares_present(erased.batch)
        assert torch.equal(erased.nominal, there if gaps else 1 - rates)
    whole = corrupt_to_train("redrawn", batch, rates * 0, uniforms, chance).nominal
    words = int(batch.token_lengths[0]) - 2
    assert whole[0, 0] == pytest.approx(1 - words // 2 / words)
    assert whole[0, 1] == pytest.approx(1 - 4 / int(batch.audio_lengths[0]))
    assert (whole[1:, 0] == 1).all()


def test_gaps_are_no_target_of_reconstruction(clips):
    model = from_pretrained("mini").model
    assert isinstance(model, LNLN)
    for gaps in (False, True):
        batch = gappy(clips, gaps)
        uniforms = draw_uniforms(batch, torch.Generator().manual_seed(1))
        erased = erase(batch, torch.full((COUNT, 3), 0.5), uniforms)
        masks = model(erased.batch, batch).reconstructions
        gone = {m: int((batch.mask(m) & ~masks[m].mask).sum()) for m in "lav"}
        half = (int(batch.token_lengths[0]) - 2) // 2
        assert gone == (
            {"l": half, "a": 4, "v": 0} if gaps else dict.fromkeys("lav", 0)
        )


def test_a_sweep_tells_what_is_missing_before_and_in_all(clips):
    batch = clips.test.batch
    rows = int(batch.audio_lengths.sum())
    shown = on_top(batch, (0.0, 0.5)).splitlines()
    assert f"{4 / rows:.1%}" in shown[2] and "0.0%" in shown[2]
    assert f"{0.5 + 2 / rows:.1%}" in shown[3] and "50.0%" in shown[3]
