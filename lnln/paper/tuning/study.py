"""A search for the settings of one method, by Optuna: stored, and exact after a kill.

A trial is a training with settings that Optuna proposes, from what the trials before it
scored and a seed of (study, trial) alone. So nothing has to be kept of a trial that a
kill interrupts but its run: the next start proposes the same settings again, and the
run goes on where it was. The study's file is replaced as a whole after each trial.

What is scored is the validation MAE of the best epoch, as everywhere. A trial whose
best so far is worse than the median of the others there ends ("pruned"), but not in the
first half of its epochs: many a training stands still at first before it learns.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lnln.data.batch import Dataset, Split, joined
from lnln.data.errors import MissingPackageError, SettingsError, require
from lnln.data.files import atomic_path
from lnln.data.simulated.corpus import simulate
from lnln.evaluation.sweep import write_csv
from lnln.paper.tuning.space import Range, Space
from lnln.training.checkpoint import write_json
from lnln.training.loop import TrainingError, train
from lnln.training.settings import Preset, with_settings

#: Seeds of the simulated corpora on which settings are chosen, and nothing else is
#: done: the first is trained on, the validation splits of all are scored.
CORPORA = (7001, 7002, 7003)
#: Trials that are never pruned, since there is nothing yet to compare with.
UNPRUNED_TRIALS = 5
#: Share of a trial's epochs in which it is not pruned.
UNPRUNED_SHARE = 0.5


@dataclass(frozen=True)
class Tuning:
    """A study of one method, and all it takes to do it.

    Attributes:
        name: of its files, such as the method's.
        preset: what is not searched, with the seed of all trainings.
        space: what is.
        dataset: trained on, and scored on its validation split.
        folder: gets `NAME.journal`, Optuna's study; `NAME.csv`, every trial's
            settings, curve, score and cost; `NAME.json`, the best settings; and, of an
            unfinished trial, its run, `NAME.run`.
        trials: how many; those that were pruned or diverged count.
        seed: of the proposals.
        device: see `resolve_device`.
    """

    name: str
    preset: Preset
    space: Space
    dataset: Dataset
    folder: Path
    trials: int = 24
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        require(self, "trials", self.trials >= 1, "at least 1")

    def path(self, suffix: str) -> Path:
        """One of its files, by ".journal", ".csv", ".json" or ".run"."""
        return self.folder / f"{self.name}{suffix}"

    def fingerprint(self) -> str:
        """A digest of all that decides its trials, but their number.

        What is searched may stand in the preset as it will.
        """
        anything = {name: choice[0] for name, choice in self.space.items()}
        fixed = with_settings(self.preset, _with_patience(anything))
        said = [fixed.to_dict(), self.space, self.dataset.sha256, self.seed]
        said += [self.dataset.scheme, UNPRUNED_TRIALS, UNPRUNED_SHARE]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def fresh_corpora(size: str = "mini", train_size: int | None = None) -> Dataset:
    """Simulated data for choosing settings, which nothing else uses.

    Args:
        size, train_size: see `simulate`.

    Returns:
        The first of the `CORPORA`; its validation split is that of all of them.
    """
    first, *others = (simulate(size, seed, train_size) for seed in CORPORA)
    valid = [first.valid, *(corpus.valid for corpus in others)]
    digests = "".join(corpus.sha256 for corpus in (first, *others))
    return replace(
        first,
        splits={**first.splits, "valid": _joined(valid)},
        source=f"{first.source}, validation splits of seeds {CORPORA}",
        sha256=hashlib.sha256(digests.encode()).hexdigest(),
    )


def _joined(splits: Sequence[Split]) -> Split:
    batch = joined([split.batch for split in splits])
    ids = tuple(each for split in splits for each in split.ids)
    return Split(batch, ids, tuple(t for split in splits for t in split.raw_text))


def tune(tuning: Tuning, *, progress: bool = True) -> dict[str, Any]:
    """Search, or go on with a search.

    Args:
        tuning: what.
        progress: show a bar in epochs, with a forecast of the time that is left.

    Returns:
        What is in `NAME.json`: the best trial's "settings" for `with_settings`, its
        "score" and number, and the "cpu_seconds" of all trials.

    Raises:
        CheckpointError: the folder of the unfinished trial holds another run.
        MissingPackageError: Optuna is not installed.
        SettingsError: the folder holds a study of something else, or no trial was
            trained to its end.
    """
    optuna = _optuna()
    trials = _load(tuning, optuna)
    bar = tqdm(desc=f"tuning {tuning.name}", unit="epoch", disable=not progress)
    with bar:
        while len(trials) < tuning.trials:
            _forecast(tuning, trials, bar)
            trials.append(_do_trial(tuning, trials, optuna, bar))
            _store(tuning, trials, optuna)
            shutil.rmtree(tuning.path(".run"), ignore_errors=True)
    counted = trials[: tuning.trials]
    write_csv(tuning.path(".csv"), table_of(tuning, counted))
    best = _best(tuning, counted)
    write_json(tuning.path(".json"), best)
    return best


def _do_trial(tuning: Tuning, before: list[Any], optuna: Any, bar: tqdm[Any]) -> Any:
    """Train with the settings that Optuna proposes; returns its frozen trial."""
    number = len(before)
    chance = np.random.SeedSequence(tuning.seed, spawn_key=(number,))
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=int(chance.generate_state(1)[0])),
        pruner=optuna.pruners.MedianPruner(UNPRUNED_TRIALS),
    )
    study.add_trials(before)
    trial = study.ask(_distributions(tuning.space, optuna))
    settings = _settings(trial.params)
    trial.set_user_attr("settings", settings)
    epochs = settings.get("train.epochs", tuning.preset.train.epochs)
    # By number, since a kill may leave the run of a trial that is in the study already.
    folder = tuning.path(".run") / str(number)
    clock = _Clock(folder / "cost.json")

    def watch(entry: dict[str, float]) -> None:
        clock.tick()
        trial.report(entry["validation_mae"], int(entry["epoch"]))
        bar.update()
        early = entry["epoch"] <= UNPRUNED_SHARE * epochs
        if not early and trial.should_prune():
            raise optuna.TrialPruned

    state, score, outcome = optuna.trial.TrialState.PRUNED, None, "pruned"
    try:
        record = train(
            with_settings(tuning.preset, settings),
            tuning.dataset,
            folder,
            resume=True,
            device=tuning.device,
            progress=False,
            save_minutes=1.0,
            watch=watch,
        )
        score = record["best"]["validation"]["score"]
        state, outcome = optuna.trial.TrialState.COMPLETE, "complete"
    except optuna.TrialPruned:
        pass
    except TrainingError as error:
        # Settings that cannot be trained are no fault of the search, and count.
        outcome = f"failed: {error}"
    clock.tick()
    trial.set_user_attr("outcome", outcome)
    trial.set_user_attr("cpu_seconds", round(clock.spent, 1))
    return study.tell(trial, score, state)


class _Clock:
    """CPU seconds of a trial, those before a kill included."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spent = 0.0
        if path.exists():
            self.spent = json.loads(path.read_text())["cpu_seconds"]
        self._last = time.process_time()

    def tick(self) -> None:
        """Add what was spent since the last time, and keep it."""
        now = time.process_time()
        self.spent, self._last = self.spent + now - self._last, now
        write_json(self.path, {"cpu_seconds": self.spent})


def _forecast(tuning: Tuning, trials: list[Any], bar: tqdm[Any]) -> None:
    """Tell the bar how many epochs are left, if none of these trials is pruned."""
    choices = tuning.space.get("train.epochs", (tuning.preset.train.epochs,))
    done = sum(len(trial.intermediate_values) for trial in trials)
    left = (tuning.trials - len(trials)) * sum(choices) / len(choices)
    if bar.n == 0:
        bar.initial = bar.n = done
    bar.total = done + round(left)
    bar.set_postfix(trial=f"{len(trials) + 1} of {tuning.trials}", refresh=False)


def _distributions(space: Space, optuna: Any) -> dict[str, Any]:
    kinds = optuna.distributions
    return {
        name: (
            kinds.FloatDistribution(choice.low, choice.high, log=choice.log)
            if isinstance(choice, Range)
            else kinds.CategoricalDistribution(choice)
        )
        for name, choice in space.items()
    }


def _settings(proposed: dict[str, Any]) -> dict[str, Any]:
    # Three digits are all that matters, and can be copied into a preset.
    settings = {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in proposed.items()
    }
    return _with_patience(settings)


def _with_patience(settings: dict[str, Any]) -> dict[str, Any]:
    # Where epochs are searched, none is left out for want of patience.
    if "train.epochs" in settings:
        return {**settings, "train.patience": settings["train.epochs"]}
    return settings


def _load(tuning: Tuning, optuna: Any) -> list[Any]:
    """The finished trials."""
    path = tuning.path(".journal")
    if not path.exists():
        return []
    study = optuna.load_study(study_name=tuning.name, storage=_storage(path, optuna))
    if study.user_attrs["fingerprint"] != tuning.fingerprint():
        raise SettingsError(
            f"{path} holds a study with other settings, data or seed; give the same "
            "options, or another --out"
        )
    return list(study.trials)


def _store(tuning: Tuning, trials: list[Any], optuna: Any) -> None:
    """Write the study and its table; each whole or not at all."""
    with atomic_path(tuning.path(".journal")) as draft:
        # Optuna would go on with what a kill left, or wait for its lock.
        for left in (draft, draft.with_name(f"{draft.name}.lock")):
            left.unlink(missing_ok=True)
        study = optuna.create_study(
            study_name=tuning.name, storage=_storage(draft, optuna)
        )
        study.set_user_attr("fingerprint", tuning.fingerprint())
        study.add_trials(trials)
    write_csv(tuning.path(".csv"), table_of(tuning, trials))


def _storage(path: Path, optuna: Any) -> Any:
    journal = optuna.storages.journal
    return optuna.storages.JournalStorage(journal.JournalFileBackend(str(path)))


def table_of(tuning: Tuning, trials: Sequence[Any]) -> pd.DataFrame:
    """Trials in tidy form.

    Args:
        tuning: whose trials.
        trials: finished ones, as Optuna has them.

    Returns:
        A row per number, with the columns method, trial, outcome, kind, name, value.
        Kinds are "setting", "curve" (named by the epoch), "score" and "cost".
    """
    rows = []
    for trial in trials:
        told = trial.user_attrs
        found = [("setting", n, v) for n, v in told["settings"].items()]
        found += [("curve", str(e), v) for e, v in trial.intermediate_values.items()]
        if told["outcome"] == "complete":
            found.append(("score", "validation_mae", trial.value))
        found.append(("cost", "cpu_seconds", told["cpu_seconds"]))
        head = (tuning.name, trial.number, told["outcome"])
        rows += [(*head, *entry) for entry in found]
    columns = ["method", "trial", "outcome", "kind", "name", "value"]
    return pd.DataFrame(rows, columns=columns)


def _best(tuning: Tuning, trials: Sequence[Any]) -> dict[str, Any]:
    outcomes = [trial.user_attrs["outcome"] for trial in trials]
    done = [t for t, o in zip(trials, outcomes, strict=True) if o == "complete"]
    if not done:
        raise SettingsError(
            f"none of the {len(trials)} trials could be trained; "
            f"{tuning.path('.csv')} says why"
        )
    best = min(done, key=lambda trial: float(trial.value))
    fixed = tuning.preset.train
    lengths = {"train.epochs": fixed.epochs, "train.patience": fixed.patience}
    return {
        "method": tuning.preset.model.method,
        "answer": fixed.answer,
        "settings": lengths | best.user_attrs["settings"],
        "score": best.value,
        "trial": best.number,
        "trials": len(trials),
        "pruned": outcomes.count("pruned"),
        "failed": len(outcomes) - len(done) - outcomes.count("pruned"),
        "cpu_seconds": round(sum(t.user_attrs["cpu_seconds"] for t in trials), 1),
        "data": tuning.dataset.source,
    }


def read_best(path: Path) -> dict[str, Any]:
    """Read what `tune` wrote as `NAME.json`.

    Raises:
        SettingsError: it is no such file.
    """
    try:
        best: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return {key: best[key] for key in ("method", "answer", "settings")}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SettingsError(
            f"{path} holds no settings of lnln tune ({type(error).__name__}: {error})"
        ) from error


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            'a search for settings needs Optuna: pip install "lnln[tune]"'
        ) from error
    # The bar and the table say it all.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
