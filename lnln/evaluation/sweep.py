"""From a trained run to a robustness curve: the sweep over missing rates."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from lnln.data.batch import MODALITIES, Batch, DataError, Dataset
from lnln.data.files import atomic_path
from lnln.data.simulated.corpus import posterior
from lnln.evaluation.limits import bayes_limit
from lnln.evaluation.linear import LinearBaseline
from lnln.missing.corruption import CORRUPTIONS
from lnln.missing.erasing import MODALITY_SUBSETS, TEST_RATES
from lnln.models import title_of
from lnln.training.checkpoint import (
    CheckpointError,
    TrainedModel,
    load_model,
    selected_checkpoints,
)
from lnln.training.devices import resolve_device
from lnln.training.scoring.distributions import Floats, distribution_scores
from lnln.training.scoring.metrics import (
    FINEST,
    evaluate_predictions,
    laziness,
    majority_floor,
)
from lnln.training.scoring.predictions import Predictions
from lnln.training.settings import Preset

#: Columns of scores in tidy form, one number a row, as in `robustness.csv`. Rate and
#: value are numbers, all else is text; what does not apply is empty.
COLUMNS = (
    "dataset",
    "method",
    "seed",
    "selection",
    "split",
    "available",
    "corruption",
    "mask_seed",
    "rate",
    "metric",
    "value",
)
BAYES, FLOOR, LINEAR = "Bayes limit", "majority floor", "linear baseline"
#: The limit of the intact data, where that of the damaged ones is not known.
BOUND = "Bayes limit, intact"
REFERENCES = (BAYES, BOUND, FLOOR, LINEAR)

#: A condition of evaluation: available modalities and their missing rate.
Condition = tuple[tuple[str, ...], float]


def conditions(
    rates: Iterable[float] = TEST_RATES,
    subsets: bool = False,
    modalities: Sequence[str] = MODALITIES,
) -> list[Condition]:
    """The conditions to evaluate.

    Args:
        rates: missing rates for all available modalities at once.
        subsets: add the modality-missing test: every subset of modalities, complete,
            with the others missing entirely (paper, Tables 11-14).
        modalities: what is available in the rate sweep.

    Returns:
        Conditions without repetition.
    """
    wanted: list[Condition] = [(tuple(modalities), rate) for rate in rates]
    if subsets:
        wanted += [(subset, 0.0) for subset in MODALITY_SUBSETS]
    return list(dict.fromkeys(wanted))


def load_record(folder: Path | str) -> dict[str, Any]:
    """Read a run's `record.json`.

    Raises:
        CheckpointError: there is none, or it is not JSON.
    """
    path = Path(folder) / "record.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{folder} holds no run (no record.json); train one with `lnln train`"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read, or is damaged ({error}); resume the run"
        ) from error
    return record


def evaluate(
    folder: Path | str,
    dataset: Dataset,
    wanted: Sequence[Condition],
    *,
    split: str = "test",
    mask_seeds: Sequence[int | str] = (0, 1, 2),
    device: torch.device | str = "auto",
    progress: bool = True,
    watch: Callable[[Condition, Sequence[Predictions]], None] | None = None,
    corruption: str = "random",
) -> pd.DataFrame:
    """Evaluate a run under every condition and mask seed.

    Args:
        folder: of the run, as `lnln.train` wrote it.
        dataset: usually the one it was trained on; any with the same feature sizes.
        wanted: from `conditions`.
        split: the split to evaluate.
        mask_seeds: corruptions per condition; "released" for the released masks.
        device: where to run; see `resolve_device`.
        progress: show a bar.
        watch: gets the predictions of each condition, one per mask seed, of the
            checkpoint that its MAE is taken from.
        corruption: a key of `CORRUPTIONS`, whose severity the rates are.

    Returns:
        Scores with `COLUMNS`: all metrics, and how lazy the predictions are.

    Raises:
        CheckpointError: a checkpoint is missing or damaged.
        DataError: the data have other feature sizes or another label scheme.
        DeviceMemoryError: the device cannot hold even one utterance.
        SettingsError: this machine has no such device.
    """
    seeds = list(dict.fromkeys(mask_seeds))
    where = resolve_device(device)
    record = load_record(folder)
    if record["data"]["scheme"] != dataset.scheme:
        raise DataError(
            f"{folder} was trained for labels of {record['data']['scheme']}, "
            f"{dataset.source} has labels of {dataset.scheme}"
        )
    batch = dataset.splits[split].batch
    files = selected_checkpoints(record["selection"], dataset.scheme)
    known = {
        "dataset": dataset.name,
        "seed": record["seed"],
        "selection": record["selection"],
        "split": split,
        "corruption": corruption,
    }
    parts = []
    names = sorted(set(files.values()))
    total = len(names) * len(wanted) * len(seeds)
    with tqdm(total=total, desc="evaluating", disable=not progress) as bar:
        for name in names:
            _check_kept(Path(folder) / name, files, record["selection"])
            trained = load_model(Path(folder) / name, where)
            trained.check(batch, dataset.source)
            kept = [m for m, file in files.items() if file == name]
            known["method"] = _method_name(trained.preset)
            for condition in wanted:
                predictions = _predict(trained, batch, condition, seeds, corruption)
                exact = _posteriors(
                    trained, dataset, split, condition, seeds, corruption
                )
                if watch is not None and "mae" in kept:
                    watch(condition, predictions)
                for seed, predicted, p in zip(seeds, predictions, exact, strict=True):
                    scores = _scores(predicted, batch, dataset.scheme, kept, p)
                    parts.append(_tidy(scores, condition, mask_seed=seed, **known))
                    bar.update()
    return pd.concat(parts, ignore_index=True)


def _tidy(scores: dict[str, float], condition: Condition, **known: Any) -> pd.DataFrame:
    """Scores of one set of predictions with `COLUMNS`; what is not known is empty."""
    same = dict.fromkeys(COLUMNS, "") | {name: str(x) for name, x in known.items()}
    available, rate = condition
    same |= {"available": "".join(available)}
    numbers = {"rate": float(rate), "value": list(scores.values())}
    return pd.DataFrame({**same, "metric": list(scores), **numbers})


def _predict(
    trained: TrainedModel,
    batch: Batch,
    condition: Condition,
    seeds: Sequence[int | str],
    corruption: str,
) -> list[Predictions]:
    """What a model says under one condition, once for each mask seed."""
    available, rate = condition
    usable = tuple(m for m in available if m in trained.preset.train.modalities)
    damage = CORRUPTIONS[corruption].damage
    damaged = [damage(batch, rate, usable, seed) for seed in seeds]
    if len({id(part.batch) for part in damaged}) == 1:
        # Only what is erased differs, so much of the work is shared.
        return trained.sweep(
            damaged[0].batch, [(part.rates, part.uniforms) for part in damaged]
        )
    return [
        trained.sweep(part.batch, [(part.rates, part.uniforms)])[0] for part in damaged
    ]


def _posteriors(
    trained: TrainedModel,
    dataset: Dataset,
    split: str,
    condition: Condition,
    seeds: Sequence[int | str],
    corruption: str,
) -> Sequence[Floats | None]:
    """What the predictions of `_predict` would be at best, where that is known."""
    kind = CORRUPTIONS[corruption]
    known = dataset.name == "simulated" and kind.exact
    if not known or trained.preset.train.answer == "point":
        return [None] * len(seeds)
    available, rate = condition
    usable = tuple(m for m in available if m in trained.preset.train.modalities)
    batch = dataset.splits[split].batch
    return [
        posterior(kind.damage(batch, rate, usable, seed).erased()) for seed in seeds
    ]


def _check_kept(path: Path, files: dict[str, str], selection: str) -> None:
    if selection == "released" and not path.exists():
        metrics = ", ".join(m for m, file in files.items() if file == path.name)
        raise CheckpointError(
            f"{path}: the released selection kept no weights for {metrics}, since no "
            "epoch was better than the untrained model of epoch 1 (item 27 of "
            "lnln.models.released); train for more epochs, or select by 'paper'"
        )


def _method_name(preset: Preset) -> str:
    modalities = preset.train.modalities
    missing = [m for m in MODALITIES if m not in modalities]
    only = f" ({'+'.join(modalities)} only)" if missing else ""
    return title_of(preset.model.method, preset.train.answer) + only


def _scores(
    predicted: Predictions,
    batch: Batch,
    scheme: Any,
    kept: Sequence[str],
    exact: Floats | None,
) -> dict[str, float]:
    scores = predicted.scores(batch.labels, scheme)
    chosen = {m: scores[m] for m in kept}
    if "mae" in kept:
        lazy = laziness(predicted.read(FINEST[scheme][0], scheme), scheme)
        estimate = float(predicted.completeness.mean())
        # Only LNLN estimates it.
        chosen |= {} if math.isnan(estimate) else {"completeness": estimate}
        chosen |= {f"laziness_{k}": v for k, v in lazy.items()}
        if (p := predicted.probabilities) is not None:
            labels = batch.labels.double().cpu().numpy()
            chosen |= distribution_scores(p, labels, scheme, exact)
    return chosen


def reference_rows(
    dataset: Dataset,
    wanted: Sequence[Condition],
    *,
    split: str = "test",
    mask_seeds: Sequence[int | str] = (0, 1, 2),
    linear: LinearBaseline | None = None,
    corruption: str = "random",
) -> pd.DataFrame:
    """What a result is read against: floor, and on simulated data the Bayes limit.

    Args:
        dataset, wanted, split, mask_seeds, corruption: as in `evaluate`.
        linear: a fitted linear baseline to add, which computes on its own device.

    Returns:
        Scores with `COLUMNS`; the methods are named `BAYES` (or `BOUND`), `FLOOR`
        and `LINEAR`.
    """
    batch = dataset.splits[split].batch
    kind = CORRUPTIONS[corruption]
    known = {"dataset": dataset.name, "split": split, "corruption": corruption}
    floor = majority_floor(dataset.train.batch.labels, batch.labels, dataset.scheme)
    parts = []
    for condition in wanted:
        available, rate = condition
        parts.append(_tidy(floor, condition, method=FLOOR, **known))
        if dataset.name == "simulated":
            limit = bayes_limit(
                batch, rate, mask_seeds, available, corruption=corruption
            )
            method = BAYES if kind.exact else BOUND
            parts.append(_tidy(limit, condition, method=method, **known))
        if linear is not None:
            for seed in mask_seeds:
                corrupted = kind.damage(batch, rate, available, seed).erased()
                scores = evaluate_predictions(
                    linear(corrupted), batch.labels, dataset.scheme
                )
                at = {"method": LINEAR, "mask_seed": seed}
                parts.append(_tidy(scores, condition, **at, **known))
    return pd.concat(parts, ignore_index=True)


def write_csv(path: Path | str, scores: pd.DataFrame) -> None:
    """Write a table without its index, atomically."""
    with atomic_path(Path(path)) as draft:
        scores.to_csv(draft, index=False, na_rep="nan", lineterminator="\n")


def read_csv(path: Path | str) -> pd.DataFrame:
    """Read scores in tidy form: rate and value as numbers, all else as text."""
    texts = pd.read_csv(path, dtype=str, keep_default_na=False)
    return texts.astype({"rate": float, "value": float})


def mean_by_rate(
    scores: pd.DataFrame, metric: str, available: str = "lav"
) -> pd.DataFrame:
    """A metric per rate and method, averaged over seeds and mask seeds.

    Args:
        scores: in tidy form.
        metric: which metric.
        available: which modalities were available.

    Returns:
        A line per rate, a column per method, in the order of the scores.
    """
    used = (scores["metric"] == metric) & (scores["available"] == available)
    means = scores[used].groupby(["method", "rate"], sort=False)["value"].mean()
    return means.unstack("method", sort=False).sort_index()
