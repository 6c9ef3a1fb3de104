"""Training: exact repetition from a seed, exact resumption after any kill.

All randomness of an epoch (order, rates, masks, words, dropout) is drawn from (seed,
purpose, epoch), so the state to resume from is only the weights, AdamW's moments and
the epoch number. It is written every few minutes; a run killed at any moment repeats
what came since, and ends with the same weights as an unbroken one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lnln.checkpoint import checkpoint_name, save_model, write_json
from lnln.config import Preset, TrainConfig
from lnln.corruption import replace_words
from lnln.data import MODALITIES, Batch, Dataset
from lnln.device import resolve_device
from lnln.distributed import own_device, processes
from lnln.errors import UserError
from lnln.method import Item
from lnln.metrics import HIGHER_IS_BETTER, evaluate_predictions
from lnln.missing import (
    Erased,
    Uniforms,
    draw_uniforms,
    erase,
    fixed_rates,
    released_uniforms,
    split_uniforms,
    training_rates,
)
from lnln.run import Run, record_of, save_state, start_run
from lnln.streams import stream, stream_seed

#: Mask seed of the validation score and of the paper's selection pass.
SELECTION_MASK_SEED = 0


class TrainingError(UserError, RuntimeError):
    """Training cannot go on; says why and what to do."""


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The rate of a step, by the schedule of the settings.

    Args:
        step: optimizer step, counted from 0.
        steps: steps of the whole run, a multiple of the epochs.
        config: peak rate, warm-up share, epochs and schedule.

    Returns:
        The learning rate of this step.
    """
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "released":
        epoch = step // (steps // config.epochs) + 1
        return _released_learning_rate(epoch, config)
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def _released_learning_rate(epoch: int, config: TrainConfig) -> float:
    # Released code: 0 in epoch 1, the peak in epochs W + 1 and W + 2 (W = 20 of 200),
    # then a cosine whose period is the other 90 %.
    warmup = config.warmup * config.epochs
    if epoch - 1 <= warmup:
        return config.learning_rate * (epoch - 1) / max(warmup, 1)
    since_peak = epoch - (math.floor(warmup) + 2)
    progress = since_peak / (config.epochs - warmup)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def train(
    preset: Preset,
    dataset: Dataset,
    folder: Path | str,
    *,
    resume: bool = False,
    device: torch.device | str = "auto",
    progress: bool = True,
    save_minutes: float = 5.0,
) -> dict[str, Any]:
    """Train a method and write the run to a folder.

    The folder gets `record.json` (settings, data, versions, history),
    `model.safetensors` (the selected epoch; with selections on the test split one
    `model-<metric>.safetensors` per metric) and `state.safetensors` (to resume).

    Args:
        preset: settings; sizes are taken from the data.
        dataset: what to train on.
        folder: where the run is written.
        resume: go on with the run in `folder`; starts it if there is none.
        device: see `resolve_device`.
        progress: show a bar with losses and time left.
        save_minutes: how much work a kill may cost; between two writings of
            `state.safetensors` lie so many minutes or one epoch, if that is longer.

    Returns:
        The run's record, as in `record.json`.

    Raises:
        CheckpointError: the folder holds a run and resume is False, or its settings
            or data differ from the given ones.
        SettingsError: this machine has no such device.
        TrainingError: the loss is no longer finite; the device's memory ran out; the
            batches of an epoch do not make one step; or `torchrun` started several
            processes for a method that one process must train.
    """
    where = own_device(resolve_device(device))
    with processes(where) as together, _memory_of(where, preset, Path(folder)):
        run = start_run(preset.fit_to(dataset), dataset, Path(folder), resume, where)
        # Nobody writes to the folder before all have looked into it.
        together.from_first(None)
        if together.count > 1 and not run.model.shareable:
            raise TrainingError(
                f"{preset.model.method} compares or remembers the utterances of a "
                "batch, so one process must train it; several runs share a cluster "
                "with lnln compare --cluster"
            )
        run.processes = together
        return _train(run, dataset, progress and together.first, 60 * save_minutes)


def _train(
    run: Run, dataset: Dataset, progress: bool, save_seconds: float
) -> dict[str, Any]:
    config = run.preset.train
    first = run.processes.first
    if run.finished:
        if first:
            write_json(run.folder / "record.json", record_of(run))
        return record_of(run)
    standardize = run.standardizer or (lambda batch: batch)
    data = standardize(dataset.train.batch).to(run.device)
    steps = math.ceil(len(data) / config.batch_size)
    if (needed := run.recipe.accumulate) > steps:
        raise TrainingError(
            f"{run.preset.model.method} makes a step of {needed} batches, but "
            f"{len(data)} training utterances are only {steps} an epoch, so it would "
            "never learn; use a smaller --batch-size"
        )
    started = time.monotonic() - run.seconds
    saved = -math.inf
    with tqdm(
        total=config.epochs * steps,
        initial=run.epoch * steps,
        desc=f"training on {run.device.type}",
        unit="step",
        disable=not progress,
    ) as bar:
        for epoch in range(run.epoch, config.epochs):
            losses = _train_epoch(run, data, epoch, bar)
            scores = _select(run, epoch + 1) if first else {}
            scores, run.best = run.processes.from_first((scores, run.best))
            entry = {"epoch": epoch + 1, **losses, **scores}
            run.history.append(entry)
            run.seconds = time.monotonic() - started
            stale = epoch + 1 - run.best["validation"]["epoch"]
            run.finished = epoch + 1 == config.epochs or (
                stale >= config.patience and config.selection != "released"
            )
            if first:
                if run.finished or time.monotonic() - saved >= save_seconds:
                    save_state(run)
                    saved = time.monotonic()
                write_json(run.folder / "record.json", record_of(run))
            if run.finished:
                break
    run.processes.from_first(None)  # no process ends before all is written
    return record_of(run)


@contextmanager
def _memory_of(where: torch.device, preset: Preset, folder: Path) -> Iterator[None]:
    """Say in one line what to do when the device's memory runs out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the memory of {where} does not hold batches of "
            f"{preset.train.batch_size} with their gradients; use a smaller "
            "--batch-size, or --bf16, --freeze-encoder, or another --device. "
            f"{folder} keeps the last whole epoch, if there is one"
        ) from error


def _train_epoch(run: Run, data: Batch, epoch: int, bar: tqdm[Any]) -> dict[str, float]:
    config = run.preset.train
    seed = config.seed
    torch.manual_seed(stream_seed(seed, "dropout", epoch, run.processes.rank))
    fixed = config.masks == "released"
    # Items 21 and 22: as released, the rates of epoch 1 stay; other training seeds
    # have other rates, under the same uniforms.
    rates = training_rates(len(data), stream(seed, "rates", 0 if fixed else epoch))
    if config.masks == "none":
        rates = torch.zeros_like(rates)
    kept_uniforms = released_uniforms(data) if fixed else None
    for column, modality in enumerate(MODALITIES):
        if modality not in config.modalities:
            rates[:, column] = 1.0
    run.model.train()
    steps = math.ceil(len(data) / config.batch_size)
    recipe = run.recipe
    peak = config.learning_rate or 1.0  # at rate 0 all shares are 0, too
    shares = [group["lr"] / peak for group in recipe.groups]
    zero = torch.zeros((), device=run.device)
    totals: dict[str, Tensor] = {}
    order = torch.randperm(len(data), generator=stream(seed, "order", epoch))
    groups = order.split(config.batch_size)
    for stage in range(1, recipe.stages + 1):
        # All stages of an epoch see the same corruptions.
        masks = stream(seed, "masks", epoch, device=run.device)
        words = stream(seed, "words", epoch, device=run.device)
        last = stage == recipe.stages
        for step, index in enumerate(groups):
            if not last and step >= recipe.first_share * steps:
                break
            size, weight = len(index), 1.0
            complete = run.model.trim(data.select(index.to(run.device)))
            if kept_uniforms is not None:
                uniforms = kept_uniforms.select(index).to(run.device)
            else:
                uniforms = draw_uniforms(complete, masks)
            erased = _corrupt(config, complete, rates[index], uniforms, words)
            if run.processes.count > 1:
                part, weight = run.processes.part(len(index))
                complete, erased = complete.select(part), erased.select(part)
                index = index[part]
            item = Item(
                complete,
                erased,
                index.to(run.device),
                epoch + 1,
                step,
                stage,
                run.forward,
                run.preset.loss,
            )
            rate = learning_rate(epoch * steps + step, config.epochs * steps, config)
            for group, share in zip(run.optimizer.param_groups, shares, strict=True):
                group["lr"] = share * rate
            losses = _step(run, item, weight)
            if not last:
                continue
            if run.average is not None:
                run.average.update_parameters(run.model)
            for name, value in losses.items():
                totals[name] = totals.get(name, zero) + value.detach() * weight * size
            bar.update()
            if step % 10 == 0:
                bar.set_postfix(
                    epoch=epoch + 1, loss=f"{losses['total'].item():.3f}", refresh=False
                )
    totals = run.processes.total(totals)
    return {f"train_{n}": float(v) / len(data) for n, v in totals.items()}


def _corrupt(
    config: TrainConfig,
    complete: Batch,
    rates: Tensor,
    uniforms: Uniforms,
    generator: torch.Generator,
) -> Erased:
    rates = rates.to(complete.tokens.device)
    if config.masks == "mixed":
        wrong = training_rates(len(complete), generator)[:, 0]
        heard, kept = replace_words(complete, wrong, generator)
        erased = erase(heard, rates, uniforms)
        nominal = erased.nominal.clone()
        nominal[:, 0] *= kept
        return replace(erased, nominal=nominal)
    erased = erase(complete, rates, uniforms)
    if config.masks == "realised":
        return replace(erased, nominal=erased.realised)
    return erased


def _step(run: Run, item: Item, weight: float) -> dict[str, Tensor]:
    """Losses, gradients and, after enough batches, a step."""
    recipe, config = run.recipe, run.preset.train
    with torch.autocast(run.device.type, torch.bfloat16, enabled=config.bf16):
        losses = run.model.losses(item)
    if item.step % recipe.accumulate == 0:
        run.optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    run.model.after_backward(item)
    run.processes.average_gradients(run.model.parameters(), weight)
    norm = torch.nn.utils.clip_grad_norm_(
        run.model.parameters(), recipe.clip_norm or math.inf
    )
    if not bool(norm.isfinite()):
        raise TrainingError(
            f"the gradient is not finite in epoch {item.epoch}, step {item.step + 1}; "
            "check the data (lnln data check), lower the learning rate or "
            f"standardise the columns. {run.folder} keeps the last whole epoch"
        )
    if recipe.clip_value:
        torch.nn.utils.clip_grad_value_(run.model.parameters(), recipe.clip_value)
    if recipe.stages > 1:
        for name, parameter in run.model.named_parameters():
            if run.model.stage_of(name) != item.stage:
                parameter.grad = None
    if (item.step + 1) % recipe.accumulate == 0:
        run.optimizer.step()
    return losses


def _select(run: Run, epoch: int) -> dict[str, float]:
    """Score the epoch; keep its weights wherever it is the best so far."""
    scores = {"validation": _validation_mae(run)}
    rule = run.preset.train.selection
    if rule != "validation":
        scores |= _test_scores(run)
    for name, score in scores.items():
        held = run.best.get(name)
        sign = 1 if HIGHER_IS_BETTER.get(name, False) else -1
        if held is None or sign * score > sign * held["score"]:
            run.best[name] = {"epoch": epoch, "score": score}
            # Item 27: as released, the untrained model counts but is not kept.
            unsaved = rule == "released" and epoch == 1
            if (name == "validation") == (rule == "validation") and not unsaved:
                save_model(
                    run.folder / checkpoint_name(name),
                    run.trained(selected_by=name, epoch=epoch, score=score),
                )
    return {
        ("validation_mae" if n == "validation" else n): s for n, s in scores.items()
    }


def _predictions(
    run: Run, batch: Batch, rates: Sequence[float], mask_seed: int | str
) -> list[Tensor]:
    available = run.preset.train.modalities
    uniforms = split_uniforms(batch, mask_seed)
    corruptions = [
        (fixed_rates(len(batch), rate, available), uniforms) for rate in rates
    ]
    return [p.sentiment for p in run.trained().sweep(batch, corruptions)]


def _validation_mae(run: Run) -> float:
    batch = run.dataset.valid.batch
    predicted = _predictions(
        run, batch, run.preset.train.validation_rates, SELECTION_MASK_SEED
    )
    errors = [(sentiment - batch.labels).abs().mean() for sentiment in predicted]
    return float(torch.stack(errors).mean())


def _test_scores(run: Run) -> dict[str, float]:
    batch = run.dataset.test.batch
    released = run.preset.train.selection == "released"
    masks = "released" if released else SELECTION_MASK_SEED
    (predicted,) = _predictions(run, batch, [0.5], masks)
    scores = evaluate_predictions(predicted, batch.labels, run.dataset.scheme)
    # F1 goes with its Acc-2, and Corr with MAE : no checkpoint of their own.
    return {n: s for n, s in scores.items() if not n.startswith("f1") and n != "corr"}


def with_train(preset: Preset, **changes: Any) -> Preset:
    """The preset with some training settings changed."""
    return replace(preset, train=replace(preset.train, **changes))
