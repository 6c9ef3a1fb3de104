"""Training: exact repetition from a seed, exact resumption after any kill.

All randomness of an epoch (order, rates, masks, words, dropout) is drawn from (seed,
purpose, epoch), so the state to resume from is only the weights, AdamW's moments and
the epoch number. It is written every few minutes; a run killed at any moment repeats
what came since, and ends with the same weights as an unbroken one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lnln.data.batch import MODALITIES, Batch, Dataset
from lnln.data.errors import UserError
from lnln.missing.corruption import corrupt_to_train
from lnln.missing.erasing import (
    Uniforms,
    draw_uniforms,
    fixed_rates,
    released_uniforms,
    split_uniforms,
    training_rates,
)
from lnln.missing.streams import stream, stream_seed
from lnln.models.method import Step
from lnln.training.checkpoint import checkpoint_name, save_model, write_json
from lnln.training.devices import own_device, processes, repeatable, resolve_device
from lnln.training.run import Run, record_of, save_state, start_run
from lnln.training.scoring.metrics import HIGHER_IS_BETTER
from lnln.training.scoring.predictions import Predictions
from lnln.training.settings import Preset, TrainConfig, learning_rate

#: Mask seed of the validation score and of the paper's selection pass.
SELECTION_MASK_SEED = 0


class TrainingError(UserError, RuntimeError):
    """Training cannot go on; says why and what to do."""


def train(
    preset: Preset,
    dataset: Dataset,
    folder: Path | str,
    *,
    resume: bool = False,
    device: torch.device | str = "auto",
    progress: bool = True,
    save_minutes: float = 5.0,
    watch: Callable[[dict[str, float]], None] | None = None,
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
        watch: called with the history's entry of each epoch, those before a resumption
            included; what it raises ends the training there.

    Returns:
        The run's record, as in `record.json`.

    Raises:
        CheckpointError: the folder holds a run and resume is False, or its settings
            or data differ from the given ones.
        SettingsError: this machine has no such device.
        TrainingError: the loss is no longer finite; the device's memory ran out, or it
            cannot repeat an operation; the batches of an epoch do not make one step; or
            `torchrun` started several processes for a method that one must train.
    """
    where = own_device(resolve_device(device))
    with (
        repeatable(where, preset.train.bf16),
        processes(where) as together,
        _limits_of(where, preset, Path(folder)),
    ):
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
        bar = progress and together.first
        return _train(run, dataset, bar, 60 * save_minutes, watch or (lambda _: None))


def _train(
    run: Run,
    dataset: Dataset,
    progress: bool,
    save_seconds: float,
    watch: Callable[[dict[str, float]], None],
) -> dict[str, Any]:
    config = run.preset.train
    first = run.processes.first
    for entry in run.history:
        watch(entry)
    if run.finished:
        if first:
            write_json(run.folder / "record.json", record_of(run))
        return record_of(run)
    standardize = run.standardizer or (lambda batch: batch)
    data = standardize(dataset.train.batch).to(run.device)
    steps = _steps_of_an_epoch(run, len(data))
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
            watch(entry)
            if run.finished:
                break
    run.processes.from_first(None)  # no process ends before all is written
    return record_of(run)


def _steps_of_an_epoch(run: Run, count: int) -> int:
    steps = math.ceil(count / run.preset.train.batch_size)
    if (needed := run.recipe.accumulate) > steps:
        raise TrainingError(
            f"{run.preset.model.method} makes a step of {needed} batches, but {count} "
            f"training utterances are only {steps} an epoch, so it would never learn; "
            "use a smaller --batch-size"
        )
    return steps


@contextmanager
def _limits_of(where: torch.device, preset: Preset, folder: Path) -> Iterator[None]:
    """Say in one line what to do where a device has not enough, or cannot repeat."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the memory of {where} does not hold batches of "
            f"{preset.train.batch_size} with their gradients; use a smaller "
            "--batch-size, or --bf16, --freeze-encoder, or another --device. "
            f"{folder} keeps the last whole epoch, if there is one"
        ) from error
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise TrainingError(
            f"{preset.model.method} uses {str(error).split()[0]}, which does not "
            f"repeat exactly on {where}; train with --device cpu, or use another "
            "operation"
        ) from error


@dataclass(frozen=True)
class _Epoch:
    """What chance decides of an epoch, but for the masks of its batches.

    Attributes:
        number: counted from 0.
        rates: (N, 3) missing rates of the training utterances.
        groups: the utterances of each batch.
        uniforms: of all utterances, where masks stay as they are; None: drawn anew.
    """

    number: int
    rates: Tensor
    groups: tuple[Tensor, ...]
    uniforms: Uniforms | None


def _draw(config: TrainConfig, data: Batch, number: int) -> _Epoch:
    """Draw rates and order of an epoch; each from a stream of its own."""
    fixed = config.masks == "released"
    # Items 21 and 22: as released, the rates of epoch 1 stay; other training seeds
    # have other rates, under the same uniforms.
    rates = training_rates(
        len(data), stream(config.seed, "rates", 0 if fixed else number)
    )
    if config.masks == "none":
        rates = torch.zeros_like(rates)
    for column, modality in enumerate(MODALITIES):
        if modality not in config.modalities:
            rates[:, column] = 1.0
    order = torch.randperm(len(data), generator=stream(config.seed, "order", number))
    uniforms = released_uniforms(data) if fixed else None
    return _Epoch(number, rates, order.split(config.batch_size), uniforms)


def _steps(
    run: Run, data: Batch, epoch: _Epoch, stage: int
) -> Iterator[tuple[Step, float]]:
    """The steps of a stage, each with the weight of this process's part of the batch.

    All stages of an epoch see the same corruptions.
    """
    config, number = run.preset.train, epoch.number
    masks = stream(config.seed, "masks", number, device=run.device)
    words = stream(config.seed, "words", number, device=run.device)
    share = 1.0 if stage == run.recipe.stages else run.recipe.first_share
    for place, index in enumerate(epoch.groups):
        if place >= share * len(epoch.groups):
            return
        complete = run.model.trim(data.select(index.to(run.device)))
        if epoch.uniforms is None:
            uniforms = draw_uniforms(complete, masks)
        else:
            uniforms = epoch.uniforms.select(index).to(run.device)
        rates = epoch.rates[index]
        erased = corrupt_to_train(config.masks, complete, rates, uniforms, words)
        weight = 1.0
        if run.processes.count > 1:
            part, weight = run.processes.part(len(index))
            complete, erased = complete.select(part), erased.select(part)
            index = index[part]
        yield (
            Step(
                complete,
                erased,
                index.to(run.device),
                number + 1,
                place,
                stage,
                run.forward,
                run.preset.loss,
            ),
            weight,
        )


def _train_epoch(
    run: Run, data: Batch, number: int, bar: tqdm[Any]
) -> dict[str, float]:
    """Train an epoch; returns the mean of each term of the loss in its last stage."""
    config = run.preset.train
    epoch = _draw(config, data, number)
    place = (number, run.processes.rank)
    torch.manual_seed(stream_seed(config.seed, "dropout", *place))
    run.model.train()
    zero = torch.zeros((), device=run.device)
    totals: dict[str, Tensor] = {}
    for stage in range(1, run.recipe.stages + 1):
        for step, weight in _steps(run, data, epoch, stage):
            _set_learning_rate(run, number * len(epoch.groups) + step.number)
            losses = _step(run, step, weight)
            if stage < run.recipe.stages:
                continue
            if run.average is not None:
                run.average.update_parameters(run.model)
            share = weight * len(epoch.groups[step.number])
            for name, value in losses.items():
                totals[name] = totals.get(name, zero) + value.detach() * share
            bar.update()
            if step.number % 10 == 0:
                loss = f"{losses['total'].item():.3f}"
                bar.set_postfix(epoch=number + 1, loss=loss, refresh=False)
    totals = run.processes.total(totals)
    return {f"train_{n}": float(v) / len(data) for n, v in totals.items()}


def _set_learning_rate(run: Run, step: int) -> None:
    config = run.preset.train
    steps = math.ceil(len(run.dataset.train) / config.batch_size)
    rate = learning_rate(step, config.epochs * steps, config)
    peak = config.learning_rate or 1.0  # at rate 0 all shares are 0, too
    groups = zip(run.optimizer.param_groups, run.recipe.groups, strict=True)
    for group, planned in groups:
        group["lr"] = planned["lr"] / peak * rate


def _step(run: Run, step: Step, weight: float) -> dict[str, Tensor]:
    """Losses, gradients and, after enough batches, a step."""
    recipe, config = run.recipe, run.preset.train
    with torch.autocast(run.device.type, torch.bfloat16, enabled=config.bf16):
        losses = run.model.losses(step)
    if step.number % recipe.accumulate == 0:
        run.optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    run.model.after_backward(step)
    run.processes.average_gradients(run.model.parameters(), weight)
    norm = torch.nn.utils.clip_grad_norm_(
        run.model.parameters(), recipe.clip_norm or math.inf
    )
    if not bool(norm.isfinite()):
        raise TrainingError(
            f"the gradient is not finite in epoch {step.epoch}, step "
            f"{step.number + 1}; check the data (lnln data check), lower the learning "
            f"rate or standardise the columns. {run.folder} keeps the last whole epoch"
        )
    if recipe.clip_value:
        torch.nn.utils.clip_grad_value_(run.model.parameters(), recipe.clip_value)
    if recipe.stages > 1:
        for name, parameter in run.model.named_parameters():
            if run.model.stage_of(name) != step.stage:
                parameter.grad = None
    if (step.number + 1) % recipe.accumulate == 0:
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
            # Step 27: as released, the untrained model counts but is not kept.
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
) -> list[Predictions]:
    available = run.preset.train.modalities
    uniforms = split_uniforms(batch, mask_seed)
    corruptions = [
        (fixed_rates(len(batch), rate, available), uniforms) for rate in rates
    ]
    return run.trained().sweep(batch, corruptions)


def _validation_mae(run: Run) -> float:
    batch = run.dataset.valid.batch
    predicted = _predictions(
        run, batch, run.preset.train.validation_rates, SELECTION_MASK_SEED
    )
    scheme = run.dataset.scheme
    errors = [(p.read("mae", scheme) - batch.labels).abs().mean() for p in predicted]
    return float(torch.stack(errors).mean())


def _test_scores(run: Run) -> dict[str, float]:
    batch = run.dataset.test.batch
    released = run.preset.train.selection == "released"
    masks = "released" if released else SELECTION_MASK_SEED
    (predicted,) = _predictions(run, batch, [0.5], masks)
    scores = predicted.scores(batch.labels, run.dataset.scheme)
    # F1 goes with its Acc-2, and Corr with MAE : no checkpoint of their own.
    return {n: s for n, s in scores.items() if not n.startswith("f1") and n != "corr"}
