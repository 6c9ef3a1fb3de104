"""A training run: what it holds, how it starts, and how it goes on after a kill."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from lnln.checkpoint import (
    CheckpointError,
    TrainedModel,
    flatten_optimizer,
    read_tensors,
    restore_optimizer,
    versions,
    with_prefix,
    write_tensors,
)
from lnln.choices import SELECTIONS
from lnln.config import Preset
from lnln.data import Dataset, Standardizer
from lnln.distributed import Processes
from lnln.method import Method, Recipe
from lnln.methods import build_model
from lnln.model import LNLN
from lnln.streams import stream_seed


@dataclass
class Run:
    """What an epoch reads and changes.

    Attributes:
        preset, dataset, folder, device: as given to `lnln.train`.
        model: the network; `forward` is the same, compiled if so configured.
        average: moving average of its weights, or None.
        recipe: how gradients become steps.
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
    history: list[dict[str, float]]
    best: dict[str, dict[str, float]]
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
    """
    if where.type == "cuda":
        # cuBLAS repeats exactly only with this set before its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        if preset.train.bf16:
            torch.set_float32_matmul_precision("high")
    torch.manual_seed(stream_seed(preset.train.seed, "weights"))
    model = build_model(preset.model).to(where)
    for name, split in dataset.splits.items():
        TrainedModel(model, preset, None, {}).check(
            split.batch, f"{dataset.source}, split {name!r}"
        )
    recipe = model.recipe(preset.train)
    kind = torch.optim.Adam if recipe.coupled else torch.optim.AdamW
    groups = [dict(group) for group in recipe.groups]
    optimizer = kind(groups, eps=recipe.epsilon, fused=where.type == "cuda")
    model.begin(dataset.train.batch.labels.to(where))
    standardizer = None
    if preset.train.standardize:
        standardizer = Standardizer.fit(dataset.train.batch)
    # Lengths change from batch to batch, so sizes are kept symbolic.
    forward = torch.compile(model, dynamic=True) if preset.train.compile else model
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
        [],
        {},
    )
    # Padded texts, to which some methods attend, are not the ones to remember.
    padded = not isinstance(model, LNLN) or model.config.as_released("padding")
    if preset.model.encoder.frozen and not padded:
        complete = dataset.train.batch
        model.text_encoder.remember(
            complete.tokens.to(where), complete.token_lengths.to(where)
        )
    state = folder / "state.safetensors"
    if not resume and (state.exists() or (folder / "record.json").exists()):
        raise CheckpointError(
            f"{folder} holds a run already; resume it (--resume) "
            "or choose another folder"
        )
    if state.exists():
        _load_state(run, state)
    return run


def _moving_average(model: Method, ema: float) -> AveragedModel:
    def update(average: Tensor, current: Tensor, count: int | Tensor) -> Tensor:
        # A short memory at first: early weights should not linger.
        decay = min(ema, (1 + int(count)) / (10 + int(count)))
        return torch.lerp(current, average, decay)

    return AveragedModel(model, avg_fn=update)


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
        names: dict[Tensor, str] = {p: n for n, p in run.model.named_parameters()}
        tensors |= flatten_optimizer(run.optimizer, names)
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
    restore_optimizer(run.optimizer, dict(run.model.named_parameters()), tensors)
    run.history, run.best = header["history"], header["best"]
    run.seconds, run.finished = header["seconds"], header["finished"]
