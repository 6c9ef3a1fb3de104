"""The search for settings: exact after kills, the same for all, and of use to train."""

import builtins
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from own_methods import WORDS

from lnln.cli.main import main
from lnln.data.errors import SettingsError
from lnln.data.files import data_dir
from lnln.models import METHODS, build_model
from lnln.paper.tuning import study
from lnln.paper.tuning.space import OWN, Range, space_of
from lnln.paper.tuning.study import CORPORA, Tuning, fresh_corpora, read_best, tune
from lnln.training.loop import TrainingError, train
from lnln.training.presets import preset_for
from lnln.training.presets.found import FOUND
from lnln.training.run import start_run
from lnln.training.settings import Preset, with_settings, with_train

pytest.importorskip("optuna")
TINY = fresh_corpora("mini", 32)
QUICK = ("--train-size", "32", "--quiet", "--device", "cpu")


@pytest.fixture
def few() -> Any:
    """A small validation split, which is most of the work of so small a corpus."""
    valid = TINY.valid.select(torch.arange(20))
    return replace(TINY, splits={**TINY.splits, "valid": valid})


def tiny(folder: Path, dataset: Any, **options: Any) -> Tuning:
    preset = with_train(preset_for("almt", "mini"), epochs=2, patience=2, seed=1)
    space = space_of(preset, epochs=2)
    return Tuning("almt", preset, space, dataset, folder, **{"trials": 3} | options)


def without_cost(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    return table[table["kind"] != "cost"].reset_index(drop=True)


def test_fresh_corpora_are_scored_together() -> None:
    assert len(TINY.valid) == 200 * len(CORPORA) and len(TINY.train) == 32
    assert {i.partition("$")[0] for i in TINY.valid.ids} == {
        f"simulated{seed}" for seed in CORPORA
    }
    assert TINY.sha256 != fresh_corpora("mini", 33).sha256


@pytest.mark.parametrize("method", FOUND)
def test_presets_are_what_the_stored_searches_found(method: str) -> None:
    best = read_best(data_dir() / "tuning" / f"{method}.json")
    assert FOUND[method] == best["settings"] and best["method"] == method
    preset = preset_for(method, "mini")
    assert with_settings(preset, best["settings"]) == preset


def test_a_stored_search_can_go_on_from_the_new_presets(tmp_path: Path) -> None:
    for suffix in (".journal", ".csv", ".json"):
        stored = data_dir() / "tuning" / f"cenet{suffix}"
        shutil.copy(stored, tmp_path / stored.name)
    preset = with_train(preset_for("cenet", "mini"), seed=CORPORA[0])
    space = space_of(preset)
    data = fresh_corpora()
    again = Tuning("cenet", preset, space, data, tmp_path, 24, CORPORA[0])
    stored = read_best(tmp_path / "cenet.json")
    best = tune(again, progress=False)  # trains nothing
    assert {key: best[key] for key in stored} == stored


@pytest.mark.parametrize("method", METHODS)
def test_every_method_shares_the_space_and_has_its_own_settings(method: str) -> None:
    preset = preset_for(method, "mini")
    space = space_of(preset)
    lnln = space_of(preset_for("lnln", "mini"))
    shared = list(lnln)[: -len(OWN["lnln"])]
    assert list(space) == [*shared, *OWN[method]]
    assert all(space[n] == lnln[n] for n in shared if n != "train.weight_decay")
    model = build_model(preset.model)
    decay = space["train.weight_decay"]
    assert isinstance(decay, Range)
    assert (decay.high < 1) == model.recipe(preset.train).coupled
    # Every setting exists, at both ends of its range.
    for place in (0, 1):
        changes = {name: choice[place] for name, choice in space.items()}
        changed = with_settings(preset, changes)
        assert changed != preset
        build_model(changed.model)


def test_a_killed_search_ends_as_an_unbroken_one(
    tmp_path: Path, few: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(tiny(tmp_path / "whole", few), progress=False)
    # Killed in the second trial behind its first epoch, then between two trials.
    epochs = []

    def dies(*given: Any, watch: Any, **options: Any) -> Any:
        def watch_and_die(entry: dict[str, float]) -> None:
            watch(entry)
            epochs.append(entry)
            if len(epochs) == 3:
                raise KeyboardInterrupt

        return train(*given, watch=watch_and_die, **{**options, "save_minutes": 0.0})

    broken = tiny(tmp_path / "broken", few)
    with monkeypatch.context() as patched:
        patched.setattr(study, "train", dies)
        with pytest.raises(KeyboardInterrupt):
            tune(broken, progress=False)
    held = pd.read_csv(broken.path(".csv"))
    assert set(held["trial"]) == {0}
    assert (broken.path(".run") / "1" / "state.safetensors").exists()
    with monkeypatch.context() as patched:
        patched.setattr(study.shutil, "rmtree", lambda *_, **__: None)
        tune(replace(broken, trials=2), progress=False)
    assert (broken.path(".run") / "1" / "record.json").exists()
    resumed = tune(broken, progress=False)
    assert {**resumed, "cpu_seconds": 0} == {**whole, "cpu_seconds": 0}
    pd.testing.assert_frame_equal(
        without_cost(broken.path(".csv")),
        without_cost(tmp_path / "whole" / "almt.csv"),
    )
    assert sorted(p.name for p in broken.folder.iterdir()) == [
        "almt.csv",
        "almt.journal",
        "almt.json",
    ]
    costs = pd.read_csv(broken.path(".csv")).query("kind == 'cost'")
    assert len(costs) == 3 and (costs["value"] > 0).all()
    # What is done is not done again; another study is not mixed with it.
    monkeypatch.setattr(study, "train", None)
    assert tune(broken, progress=False) == resumed
    with pytest.raises(SettingsError, match="another --out"):
        tune(replace(broken, seed=5), progress=False)


def pretend(curves: list[list[float] | None]) -> Any:
    """A training whose n-th call has these validation errors, or cannot be done."""
    calls = iter(curves)

    def trained(preset: Preset, *_: Any, watch: Any, **__: Any) -> Any:
        curve = next(calls)
        if curve is None:
            raise TrainingError("the gradient is not finite")
        for epoch, error in enumerate(curve, 1):
            watch({"epoch": epoch, "validation_mae": error})
        return {"best": {"validation": {"score": min(curve)}}}

    return trained


def test_trials_behind_the_median_end_early_and_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.45]
    bad = [error + 1 for error in good]
    curves = [good, good, None, good, bad, good, bad, good]
    monkeypatch.setattr(study, "train", pretend(curves))
    tuning = tiny(tmp_path, TINY, trials=8)
    tuning = replace(tuning, preset=with_train(tuning.preset, epochs=8))
    best = tune(tuning, progress=False)
    assert (best["pruned"], best["failed"], best["trials"]) == (1, 1, 8)
    assert best["score"] == 0.4
    table = pd.read_csv(tmp_path / "almt.csv")
    outcomes = table.drop_duplicates("trial").set_index("trial")["outcome"]
    # The first bad one runs to its end, since there was too little to compare with.
    assert outcomes[4] == "complete" and outcomes[6] == "pruned"
    assert outcomes[2] == "failed: the gradient is not finite"
    curve = table[(table["trial"] == 6) & (table["kind"] == "curve")]
    # Its first four epochs are its own.
    assert list(curve["value"]) == bad[:5]
    assert "score" not in set(table[table["trial"] == 6]["kind"])
    monkeypatch.setattr(study, "train", pretend([None]))
    with pytest.raises(SettingsError, match="none of the 1 trials"):
        tune(tiny(tmp_path / "none", TINY, trials=1), progress=False)


def test_what_is_found_trains_and_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "tuning")
    command = ["tune", "--method", "almt", "--trials", "1", "--epochs", "1", *QUICK]
    assert main([*command, "--out", out]) == 0
    said = capsys.readouterr().out
    (line,) = [t for t in said.splitlines() if t.startswith("next: lnln ")]
    found = read_best(tmp_path / "tuning" / "almt.json")["settings"]
    run = tmp_path / "run"
    train_words = [*line.split()[2:], *QUICK, "--out", str(run)]
    assert main([*train_words, "--clip", "0.5"]) == 0
    record = json.loads((run / "record.json").read_text())
    trained = record["preset"]
    for name, value in found.items():
        place: Any = trained
        for key in name.split("."):
            place = place[key]
        assert place == value, name
    assert trained["train"]["clip"] == 0.5 and trained["train"]["epochs"] == 1
    # It stands in a comparison as well; settings of nobody there are refused.
    settings = ["--settings", f"{out}/almt.json"]
    compare = ["compare", "--seeds", "1", *QUICK, *settings, "--methods"]
    assert main([*compare, "misa", "--out", str(tmp_path / "grid")]) == 1
    assert "settings of ALMT, which is not trained here" in capsys.readouterr().err
    grid = ["--mask-seeds", "0", "--out", str(tmp_path / "grid")]
    assert main([*compare, "almt", *grid]) == 0
    cell = json.loads((tmp_path / "grid" / "almt-1" / "record.json").read_text())
    for part in ("model", "train"):
        same = {**cell["preset"][part], **{"seed": 0, "clip": 0}}
        assert same == {**trained[part], **{"seed": 0, "clip": 0}}
    assert main(["train", *settings, *QUICK, "--out", str(tmp_path / "no")]) == 1
    assert "add --method almt" in capsys.readouterr().err


def test_the_encoder_learns_at_its_own_rate(tmp_path: Path) -> None:
    preset = with_train(preset_for("lnln", "mini"), encoder_rate=0.25)
    run = start_run(preset.fit_to(TINY), TINY, tmp_path, False, torch.device("cpu"))
    inside = {id(p) for p in run.model.text_encoder.parameters()}
    rates = {
        id(p): group["lr"]
        for group in run.optimizer.param_groups
        for p in group["params"]
    }
    assert rates.keys() == {id(p) for p in run.model.parameters() if p.requires_grad}
    peak = preset.train.learning_rate
    assert {rates[p] for p in inside} == {0.25 * peak}
    assert {rate for p, rate in rates.items() if p not in inside} == {peak}
    values = preset_for("lnln", "mini").to_dict()
    del values["train"]["encoder_rate"]  # as in checkpoints of earlier versions
    assert Preset.from_dict(values) == with_train(preset, encoder_rate=1.0)


def test_settings_are_changed_by_name_or_refused() -> None:
    preset = preset_for("self_mm", "mini")
    changes = {"model.rates.1": 2.0, "model.dropouts": 0.3, "train.epochs": 7}
    changed = with_settings(preset, changes)
    rates = preset.model.rates  # type: ignore[attr-defined]
    assert changed.model.rates == (rates[0], 2.0, rates[2])  # type: ignore[attr-defined]
    assert changed.model.dropouts == (0.3,) * 4  # type: ignore[attr-defined]
    assert changed.train == replace(preset.train, epochs=7)
    for name, value in (
        ("model.alpha", 1.0),
        ("model.rates.3", 1.0),
        ("train.epochs", 1.5),
        ("train.schedule", 1),
        ("train.ema", 2.0),
    ):
        with pytest.raises(SettingsError, match=name.rpartition(".")[2]):
            with_settings(preset, {name: value})


def test_a_method_of_ones_own_says_what_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = WORDS.replace("my_words", "my_tuned").replace(
        "    config_type = WordsConfig\n",
        "    config_type = WordsConfig\n    tuned = {'pull': (0.1, 1.0, True)}\n",
    )
    own = own.replace("width: int = 16", "width: int = 16\n    pull: float = 1.0")
    (tmp_path / "my_tuned.py").write_text(own)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    command = "tune --method my_tuned:Words --trials 2 --epochs 1 --out out".split()
    assert main([*command, *QUICK]) == 0
    table = pd.read_csv(tmp_path / "out" / "my_tuned.Words.csv")
    pulls = table[table["name"] == "model.pull"]["value"]
    assert len(set(pulls)) == 2 and pulls.between(0.1, 1.0).all()
    best = read_best(tmp_path / "out" / "my_tuned.Words.json")
    assert float(best["settings"]["model.pull"]) in set(pulls)


def test_errors_are_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["tune", *QUICK, "--out", str(tmp_path / "out")]
    assert main([*command, "--trials", "0"]) == 1
    assert "trials 0 is impossible; it must be at least 1" in capsys.readouterr().err
    assert main([*command, "--method", "mulan"]) == 1
    assert "'mulan' is unknown; choose from" in capsys.readouterr().err
    (tmp_path / "no.json").write_text("[]")
    for name in ("no.json", "absent.json"):
        settings = ["--settings", str(tmp_path / name)]
        assert main(["train", *settings, *QUICK]) == 1
        assert "holds no settings of lnln tune" in capsys.readouterr().err
    real = builtins.__import__

    def without(name: str, *given: Any, **options: Any) -> Any:
        if name == "optuna":
            raise ModuleNotFoundError(name)
        return real(name, *given, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(command) == 1
    assert 'pip install "lnln[tune]"' in capsys.readouterr().err
    assert not os.path.exists(tmp_path / "out")
