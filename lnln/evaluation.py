"""From a trained run to a robustness curve: the sweep over missing rates."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from lnln.bayes import bayes_limit
from lnln.checkpoint import (
    CheckpointError,
    Predictions,
    TrainedModel,
    load_model,
    selected_checkpoints,
)
from lnln.config import Preset
from lnln.corruption import CORRUPTIONS, Damaged
from lnln.data import MODALITIES, Batch, DataError, Dataset
from lnln.device import resolve_device
from lnln.linear import LinearBaseline
from lnln.methods import TITLES
from lnln.metrics import METRICS, evaluate_predictions, laziness, majority_floor
from lnln.missing import MODALITY_SUBSETS, TEST_RATES
from lnln.paths import atomic_path

#: Columns of `robustness.csv`; one number per row.
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
Row = dict[str, Any]
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
) -> list[Row]:
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
        Tidy rows with `COLUMNS`: all metrics, and how lazy the predictions are.

    Raises:
        CheckpointError: a checkpoint is missing or damaged.
        DataError: the data have other feature sizes or another label scheme.
        DeviceMemoryError: the device cannot hold even one utterance.
        SettingsError: this machine has no such device.
    """
    mask_seeds = list(dict.fromkeys(mask_seeds))
    where = resolve_device(device)
    record = load_record(folder)
    if record["data"]["scheme"] != dataset.scheme:
        raise DataError(
            f"{folder} was trained for labels of {record['data']['scheme']}, "
            f"{dataset.source} has labels of {dataset.scheme}"
        )
    batch = dataset.splits[split].batch
    files = selected_checkpoints(record["selection"], dataset.scheme)
    rows: list[Row] = []
    names = sorted(set(files.values()))
    total = len(names) * len(wanted) * len(mask_seeds)
    with tqdm(total=total, desc="evaluating", disable=not progress) as bar:
        for name in names:
            _check_kept(Path(folder) / name, files, record["selection"])
            trained = load_model(Path(folder) / name, where)
            trained.check(batch, dataset.source)
            kept = [m for m, file in files.items() if file == name]
            base = {
                "dataset": dataset.name,
                "method": _method_name(trained.preset),
                "seed": record["seed"],
                "selection": record["selection"],
                "split": split,
                "corruption": corruption,
            }
            for available, rate in wanted:
                usable = [m for m in available if m in trained.preset.train.modalities]
                damaged = [
                    CORRUPTIONS[corruption].damage(batch, rate, tuple(usable), seed)
                    for seed in mask_seeds
                ]
                predictions = _predict(trained, damaged)
                if watch is not None and "mae" in kept:
                    watch((available, rate), predictions)
                for seed, predicted in zip(mask_seeds, predictions, strict=True):
                    scores = _scores(predicted, batch, dataset.scheme, kept)
                    at = {"available": "".join(available), "mask_seed": seed}
                    rows += _rows({**base, **at, "rate": rate}, scores)
                    bar.update()
    return rows


def _predict(trained: TrainedModel, damaged: Sequence[Damaged]) -> list[Predictions]:
    """What a model says to the same utterances under several corruptions."""
    if len({id(part.batch) for part in damaged}) == 1:
        # Only what is erased differs, so much of the work is shared.
        return trained.sweep(
            damaged[0].batch, [(part.rates, part.uniforms) for part in damaged]
        )
    return [
        trained.sweep(part.batch, [(part.rates, part.uniforms)])[0] for part in damaged
    ]


def _check_kept(path: Path, files: dict[str, str], selection: str) -> None:
    if selection == "released" and not path.exists():
        metrics = ", ".join(m for m, file in files.items() if file == path.name)
        raise CheckpointError(
            f"{path}: the released selection kept no weights for {metrics}, since no "
            "epoch was better than the untrained model of epoch 1 (item 27 of "
            "lnln.released); train for more epochs, or select by 'paper'"
        )


def _method_name(preset: Preset) -> str:
    modalities = preset.train.modalities
    missing = [m for m in MODALITIES if m not in modalities]
    only = f" ({'+'.join(modalities)} only)" if missing else ""
    return TITLES[preset.model.method] + only


def _scores(
    predicted: Predictions, batch: Batch, scheme: Any, kept: Sequence[str]
) -> dict[str, float]:
    scores = evaluate_predictions(predicted.sentiment, batch.labels, scheme)
    chosen = {m: scores[m] for m in kept}
    if "mae" in kept:
        lazy = laziness(predicted.sentiment, scheme)
        estimate = float(predicted.completeness.mean())
        # Only LNLN estimates it.
        chosen |= {} if math.isnan(estimate) else {"completeness": estimate}
        chosen |= {f"laziness_{k}": v for k, v in lazy.items()}
    return chosen


def _rows(at: Row, scores: dict[str, float]) -> list[Row]:
    return [{**at, "metric": metric, "value": v} for metric, v in scores.items()]


def reference_rows(
    dataset: Dataset,
    wanted: Sequence[Condition],
    *,
    split: str = "test",
    mask_seeds: Sequence[int | str] = (0, 1, 2),
    linear: LinearBaseline | None = None,
    corruption: str = "random",
) -> list[Row]:
    """What a result is read against: floor, and on simulated data the Bayes limit.

    Args:
        dataset, wanted, split, mask_seeds, corruption: as in `evaluate`.
        linear: a fitted linear baseline to add, which computes on its own device.

    Returns:
        Tidy rows with `COLUMNS`; the methods are named `BAYES` (or `BOUND`), `FLOOR`
        and `LINEAR`.
    """
    batch = dataset.splits[split].batch
    kind = CORRUPTIONS[corruption]
    base = {"dataset": dataset.name, "seed": "", "selection": "", "split": split}
    base["corruption"] = corruption
    floor = majority_floor(dataset.train.batch.labels, batch.labels, dataset.scheme)
    rows: list[Row] = []
    for available, rate in wanted:
        at = {**base, "available": "".join(available), "mask_seed": "", "rate": rate}
        rows += _rows({**at, "method": FLOOR}, floor)
        if dataset.name == "simulated":
            limit = bayes_limit(
                batch, rate, mask_seeds, available, corruption=corruption
            )
            rows += _rows({**at, "method": BAYES if kind.exact else BOUND}, limit)
        if linear is not None:
            for seed in mask_seeds:
                corrupted = kind.damage(batch, rate, available, seed).erased()
                scores = evaluate_predictions(
                    linear(corrupted), batch.labels, dataset.scheme
                )
                rows += _rows({**at, "method": LINEAR, "mask_seed": seed}, scores)
    return rows


def write_csv(path: Path | str, rows: Sequence[Row]) -> None:
    """Write tidy rows atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({c: row.get(c, "") for c in COLUMNS})
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def read_csv(path: Path | str) -> list[Row]:
    """Read what `write_csv` wrote; all values are text."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def mean_by_rate(
    rows: Iterable[Row], metric: str, available: str = "lav"
) -> dict[str, dict[float, float]]:
    """A metric per method and rate, averaged over seeds and mask seeds.

    Args:
        rows: tidy rows.
        metric: which metric.
        available: which modalities were available.

    Returns:
        {method: {rate: mean}}.
    """
    values: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        if row["metric"] == metric and row["available"] == available:
            of_method = values.setdefault(row["method"], {})
            of_method.setdefault(float(row["rate"]), []).append(float(row["value"]))
    return {
        method: {rate: sum(v) / len(v) for rate, v in sorted(by_rate.items())}
        for method, by_rate in values.items()
    }


def table(rows: Sequence[Row], method: str, scheme: str, available: str = "lav") -> str:
    """A method's metrics per missing rate as text, with the mean of r = 0..0.9."""
    metrics = METRICS[scheme]
    columns = [mean_by_rate(rows, m, available).get(method, {}) for m in metrics]
    rates = sorted(set().union(*columns))
    lines = ["   r  " + "".join(f"{m:>18}" for m in metrics)]
    for rate in rates:
        cells = "".join(f"{c[rate]:18.3f}" for c in columns)
        lines.append(f"{rate:5.2f} {cells}")
    swept = [rate for rate in TEST_RATES if rate in rates]
    if len(swept) == len(TEST_RATES):
        means = [sum(c[rate] for rate in swept) / len(swept) for c in columns]
        lines.append(" mean " + "".join(f"{m:18.3f}" for m in means))
    return "\n".join(lines)
