"""A training run: what it holds, how it starts, and how it goes on after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from lnln.data.batch import Dataset, Standardizer
from lnln.missing.streams import stream_seed
from lnln.models import build_model, is_own, try_out
from lnln.models.blocks.encoder import EncoderConfig, architecture_of
from lnln.models.lnln import LNLN
from lnln.models.method import Method, Recipe
from lnln.models.released import Padding
from lnln.training.checkpoint import (
    CheckpointError,
    TrainedModel,
    keeping_random_state,
    read_tensors,
    selected_checkpoints,
    versions,
    with_prefix,
    write_tensors,
)
from lnln.training.devices import Processes, compiled
from lnln.training.settings import SELECTIONS, Preset, TrainConfig


@dataclass
class Run:
    """What an epoch reads and changes.

    Attributes:
        preset, dataset, folder, device: as given to `lnln.train`.
        model: the network; `forward` is the same, compiled if so configured.
        average: moving average of its weights, or None.
        recipe: how the optimizer updates the weights.
        optimizer: Adam or AdamW over the trainable parameters.
        standardizer: column scaling, or None.
        history: one entry per finished epoch.
        best: per score, its best value and epoch.
        seconds: wall time over all resumptions.
        finished: no epoch is left to train.
        processes: those that train this run together.
    """

    preset: Preset
    dataset: Dataset
    folder: Path
    device: torch.device
    model: Method
    forward: Callable[..., Any]
    average: AveragedModel | None
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    standardizer: Standardizer | None
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    finished: bool = False
    processes: Processes = field(default_factory=Processes)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    def trained(self, **provenance: Any) -> TrainedModel:
        """The model as it is evaluated now, with what is known of its origin."""
        model = self.model
        if self.average is not None:
            model = cast(Method, self.average.module)
        return TrainedModel(
            model,
            self.preset,
            self.standardizer,
            {**provenance_of(self.preset, self.dataset), **provenance},
        )


def start_run(
    preset: Preset, dataset: Dataset, folder: Path, resume: bool, where: torch.device
) -> Run:
    """Seed everything and build the run, or restore the one in the folder.

    Args:
        preset: settings that fit the data.
        dataset, folder, resume: as given to `lnln.train`.
        where: the device.

    Returns:
        `Run`.

    Raises:
        CheckpointError: the folder holds a run and resume is False, or its settings
            or data differ.
        DataError: the encoder has another vocabulary than the data.
        SettingsError: a method of one's own gives what cannot be trained on.
    """
    torch.manual_seed(stream_seed(preset.train.seed, "weights"))
    model = build_model(preset.model).to(where)
    for name, split in dataset.splits.items():
        TrainedModel(model, preset, None, {}).check(
            split.batch, f"{dataset.source}, split {name!r}"
        )
    if is_own(preset.model.method):
        two = dataset.train.batch.select(torch.arange(2)).to(where)
        try_out(model, model.trim(two))
    recipe = _with_encoder_rate(model, preset.train)
    kind = torch.optim.Adam if recipe.coupled else torch.optim.AdamW
    groups = [dict(group) for group in recipe.groups]
    optimizer = kind(groups, eps=recipe.epsilon, fused=where.type in ("cpu", "cuda"))
    model.begin(dataset.train.batch.labels.to(where))
    standardizer = None
    if preset.train.standardize:
        standardizer = Standardizer.fit(dataset.train.batch)
    forward = compiled(model) if preset.train.compile else model
    run = Run(
        preset,
        dataset,
        folder,
        where,
        model,
        forward,
        _moving_average(model, preset.train.ema) if preset.train.ema else None,
        recipe,
        optimizer,
        standardizer,
    )
    _remember_texts(run)
    state = folder / "state.safetensors"
    if not resume and (state.exists() or (folder / "record.json").exists()):
        raise CheckpointError(
            f"{folder} holds a run already; resume it (--resume) "
            "or choose another folder"
        )
    if state.exists():
        _load_state(run, state)
    return run


def _with_encoder_rate(model: Method, train: TrainConfig) -> Recipe:
    """The method's recipe; its text encoder learns at another share of the rate."""
    recipe = model.recipe(train)
    if train.encoder_rate == 1:
        return recipe
    inside = {id(parameter) for parameter in model.text_encoder.parameters()}
    groups = []
    for group in recipe.groups:
        parts: dict[bool, list[Tensor]] = {True: [], False: []}
        for parameter in group["params"]:
            parts[id(parameter) in inside].append(parameter)
        rates = {True: group["lr"] * train.encoder_rate, False: group["lr"]}
        groups += [
            {**group, "params": parts[part], "lr": rates[part]}
            for part in parts
            if parts[part]
        ]
    return replace(recipe, groups=groups)


def _remember_texts(run: Run) -> None:
    """Let a frozen encoder compute the complete texts once."""
    # Padded texts, to which some methods attend, are not the ones to remember.
    padded = not isinstance(run.model, LNLN) or isinstance(run.model, Padding)
    if run.preset.model.encoder.frozen and not padded:
        complete = run.dataset.train.batch
        run.model.text_encoder.remember(
            complete.tokens.to(run.device), complete.token_lengths.to(run.device)
        )


def _moving_average(model: Method, ema: float) -> AveragedModel:
    def update(average: Any, current: Any, count: int | Tensor) -> None:
        # A short memory at first: early weights should not linger.
        decay = min(ema, (1 + int(count)) / (10 + int(count)))
        torch._foreach_copy_(average, torch._foreach_lerp(current, average, decay))

    return AveragedModel(model, multi_avg_fn=update)


def provenance_of(preset: Preset, dataset: Dataset) -> dict[str, Any]:
    """Data, seed, selection rule and versions: what every output must name."""
    return {
        "data": {
            "name": dataset.name,
            "scheme": dataset.scheme,
            "source": dataset.source,
            "sha256": dataset.sha256,
            "mended": list(dataset.mended),
            "notes": list(dataset.notes),
            "reading": dataset.reading.to_dict(),
            "special_tokens": asdict(dataset.train.batch.special),
            **({"features": dataset.features} if dataset.features else {}),
        },
        "seed": preset.train.seed,
        "selection": preset.train.selection,
        "selection_rule": SELECTIONS[preset.train.selection],
        "versions": versions(),
    }


def record_of(run: Run) -> dict[str, Any]:
    """The run as plain JSON values, for `record.json`."""
    return {
        **provenance_of(run.preset, run.dataset),
        "method": run.preset.model.method,
        "preset": run.preset.to_dict(),
        "device": _device_name(run.device),
        "processes": run.processes.count,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "best": run.best,
        "seconds": round(run.seconds, 1),
        "finished": run.finished,
        "history": run.history,
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def save_state(run: Run) -> None:
    """Write what the next epoch starts from, atomically.

    A finished run has no next epoch, so AdamW's moments, two thirds of the file, go.
    """
    tensors = {f"model.{k}": v for k, v in run.model.state_dict().items()}
    if run.average is not None:
        tensors |= {f"average.{k}": v for k, v in run.average.state_dict().items()}
    tensors |= {f"memory.{k}": v for k, v in run.model.memory().items()}
    if not run.finished:
        tensors |= _optimizer_state(run)
    header = {
        "preset": run.preset.to_dict(),
        "sha256": run.dataset.sha256,
        "taken": _taken(run.dataset),
        "history": run.history,
        "best": run.best,
        "seconds": run.seconds,
        "finished": run.finished,
    }
    write_tensors(run.folder / "state.safetensors", tensors, header)


def _taken(dataset: Dataset) -> list[Any]:
    """What one file may be read as, depending on options."""
    sizes = [len(split) for split in dataset.splits.values()]
    return [dataset.scheme, *sizes, int(dataset.train.batch.tokens.sum())]


def _load_state(run: Run, path: Path) -> None:
    tensors, header = read_tensors(path)
    if header["sha256"] != run.dataset.sha256:
        raise CheckpointError(f"{run.folder}: the run was trained on other data")
    # Runs of earlier versions do not say.
    if header.get("taken", _taken(run.dataset)) != _taken(run.dataset):
        raise CheckpointError(
            f"{run.folder}: the run read the same file otherwise (--scheme, "
            "--valid-share, --transcripts); resume it with the same options"
        )
    saved = Preset.from_dict(header["preset"])
    if saved != run.preset:
        raise CheckpointError(
            f"{run.folder}: the run has other settings; resume it with the same ones"
        )
    run.model.load_state_dict(with_prefix(tensors, "model."))
    if run.average is not None:
        run.average.load_state_dict(with_prefix(tensors, "average."))
    run.model.restore(with_prefix(tensors, "memory."))
    _restore_optimizer(run, with_prefix(tensors, "optimizer."))
    run.history, run.best = header["history"], header["best"]
    run.seconds, run.finished = header["seconds"], header["finished"]


def _optimizer_state(run: Run) -> dict[str, Tensor]:
    """AdamW's state as named tensors `optimizer.<parameter>.<entry>`."""
    return {
        f"optimizer.{name}.{key}": value
        for name, parameter in run.model.named_parameters()
        for key, value in run.optimizer.state.get(parameter, {}).items()
    }


def _restore_optimizer(run: Run, tensors: dict[str, Tensor]) -> None:
    """The inverse of `_optimizer_state`, from names without "optimizer."."""
    parameters = dict(run.model.named_parameters())
    for name, value in tensors.items():
        parameter, key = name.rsplit(".", 1)
        owner = parameters[parameter]
        # AdamW keeps its step counter on the CPU unless it is fused.
        on_device = key != "step" or bool(run.optimizer.defaults.get("fused"))
        run.optimizer.state[owner][key] = value.to(owner.device) if on_device else value


class Disk(NamedTuple):
    """Bytes that a run takes on disk.

    Attributes:
        training: while it trains: its checkpoints and the state to resume from.
        finished: what is left when it has ended.
    """

    training: int
    finished: int


def parameters_of(preset: Preset) -> tuple[int, int]:
    """Numbers of all and of the trainable parameters, without making any.

    Raises:
        SettingsError: the text encoder is not known on this machine.
    """
    architecture: dict[str, Any] | None = None
    encoder: EncoderConfig = preset.model.encoder
    if encoder.name is not None:
        architecture = architecture_of(encoder.name)
    with keeping_random_state(), torch.device("meta"):
        model = build_model(preset.model, architecture)
    parameters = list(model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return sum(p.numel() for p in parameters), trained


def disk_of(preset: Preset, scheme: str) -> Disk:
    """The bytes of a run: single-precision numbers, some kilobytes of text left out.

    Args:
        preset: its settings, fitted to the data.
        scheme: "mosi" or "sims"; decides how many checkpoints a selection on the test
            split keeps.

    Raises:
        SettingsError: the text encoder is not known on this machine.
    """
    total, trained = parameters_of(preset)
    files = len(set(selected_checkpoints(preset.train.selection, scheme).values()))
    copies = 2 if preset.train.ema else 1  # the moving average is a second model
    kept = 4 * total * (files + copies)
    return Disk(kept + 4 * 2 * trained, kept)


def outline(preset: Preset, dataset: Dataset, folder: Path) -> str:
    """The lines that `lnln train --dry-run` prints.

    Args:
        preset: settings, fitted to the data.
        dataset: what it would train on.
        folder: of the run.
    """
    train = preset.train
    total, trained = parameters_of(preset)
    disk = disk_of(preset, dataset.scheme)
    steps = math.ceil(len(dataset.train) / train.batch_size)
    return "\n".join(
        [
            f"{folder}: {preset.model.method}, seed {train.seed}, on {dataset.source}",
            f"{total:,} parameters, {trained:,} of them trained",
            f"at most {train.epochs} epochs of {steps} steps on {len(dataset.train)} "
            "utterances",
            f"on disk {size(disk.training)} while it trains, then "
            f"{size(disk.finished)}",
        ]
    )


def size(count: int) -> str:
    """Bytes in words, as in "1.9 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
