"""Trained models on disk: safetensors and JSON, written atomically, checked on load.

Nothing here unpickles: weights are safetensors, everything else is JSON in their
header, so one file holds all that is needed and cannot be half old and half new.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lnln.data.batch import Batch, DataError, Standardizer, batches_by_length
from lnln.data.errors import SettingsError, UserError
from lnln.data.files import atomic_path, data_dir, sha256_of
from lnln.missing.erasing import Uniforms, erase
from lnln.models import build_model
from lnln.models.method import Method
from lnln.training.devices import DeviceMemoryError, resolve_device
from lnln.training.scoring.metrics import METRICS
from lnln.training.scoring.predictions import Predictions
from lnln.training.settings import Preset

_FORMAT = 1
#: Corrupted utterances a sweep computes at once; it takes many to keep a GPU busy.
SWEPT_AT_ONCE = {"cpu": 256, "cuda": 4096}
_STATISTICS = ("audio_mean", "audio_scale", "vision_mean", "vision_scale")


class CheckpointError(UserError, RuntimeError):
    """A checkpoint is missing, damaged or of another kind; says what to do."""


@dataclass(frozen=True)
class TrainedModel:
    """A model with everything needed to use it on raw data.

    Attributes:
        model: the network, in evaluation mode.
        preset: the settings it was trained with.
        standardizer: column scaling fitted on its training data, or None.
        provenance: what it was trained on and when it was chosen, for reports.
    """

    model: Method
    preset: Preset
    standardizer: Standardizer | None
    provenance: dict[str, Any]

    def check(self, batch: Batch, source: str = "these data") -> None:
        """Make sure that the model can read utterances.

        Args:
            batch: utterances in raw units.
            source: where they come from, for the message.

        Raises:
            DataError: they have other features, longer sequences or unknown tokens.
        """
        config = self.model.config
        have = (batch.audio.shape[2], batch.vision.shape[2])
        want = (config.audio_width, config.vision_width)
        if have != want:
            raise DataError(
                f"{source}: audio and vision are {have} wide, the model expects "
                f"{want}; use features of the kind that it was trained with"
            )
        encoder = self.model.text_encoder
        text_length = min(config.text_length, encoder.longest)
        for what, lengths, limit in (
            ("tokens", batch.token_lengths, text_length),
            ("audio frames", batch.audio_lengths, config.audio_length),
            ("visual frames", batch.vision_lengths, config.vision_length),
        ):
            if len(batch) and (longest := int(lengths.max())) > limit:
                raise DataError(
                    f"{source}: up to {longest} {what}, the model was built for "
                    f"{limit}; cut the sequences, or train on data as long as these"
                )
        encoder.check(batch, source)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Any:
        """Predict from (corrupted) utterances in raw units, on the model's device.

        Raises:
            DataError: see `check`.
        """
        self.check(batch)
        batch = batch.to(next(self.model.parameters()).device)
        if self.standardizer is not None:
            batch = self.standardizer(batch)
        self.model.eval()
        return self.model(self.model.trim(batch))

    def predict(
        self, batch: Batch, rates: Tensor, uniforms: Uniforms, size: int | None = None
    ) -> Predictions:
        """Erase from complete utterances and predict: `sweep` of one corruption."""
        (predictions,) = self.sweep(batch, [(rates, uniforms)], size)
        return predictions

    def sweep(
        self,
        batch: Batch,
        corruptions: Sequence[tuple[Tensor, Uniforms]],
        size: int | None = None,
    ) -> list[Predictions]:
        """Predict complete utterances under several corruptions at once.

        All corruptions of an utterance are equally long and differ in what is erased
        only, so they share a batch, no padding and much of the work. Corruptions that
        leave the same batch (any two at rate 0, or at rates 0 and 1) are computed once.

        Args:
            batch: N complete utterances in raw units.
            corruptions: per corruption (N, 3) missing rates of language, audio,
                vision, and the draws of `split_uniforms`.
            size: corrupted utterances per batch, by default as `SWEPT_AT_ONCE` says;
                it does not change what is erased. Where a GPU's memory does not hold
                so many, halves are tried.

        Returns:
            One `Predictions` per corruption, in the order of `batch`, on the CPU.

        Raises:
            DataError: see `check`.
            DeviceMemoryError: the memory does not even hold one utterance.
        """
        self.check(batch)
        if self.standardizer is not None:
            batch = self.standardizer(batch)
        device = next(self.model.parameters()).device
        if not corruptions:
            return []
        distinct = _distinct([rates for rates, _ in corruptions])
        used = [corruptions[i] for i in sorted(set(distinct))]
        config = self.model.config
        shape = (len(used), len(batch))
        wide = (config.answer_size,) if config.answer_size > 1 else ()
        answer, completeness = torch.empty(*shape, *wide), torch.empty(shape)
        self.model.eval()
        size = size or SWEPT_AT_ONCE[device.type]
        groups = list(batches_by_length(batch, max(1, size // len(used))))
        while groups:
            index = groups[0]
            part = self.model.trim(batch.select(index.to(batch.device)))
            answers = self._answers(part, index, used, device)
            if answers is None:
                if len(index) == 1:
                    raise DeviceMemoryError(
                        f"{device} has too little memory for one utterance under "
                        f"{len(used)} corruptions; use --device cpu, or a GPU with more"
                    )
                torch.cuda.empty_cache()
                half = (len(index) + 1) // 2
                groups = [piece for group in groups for piece in group.split(half)]
                continue
            answer[:, index], completeness[:, index] = answers
            del groups[0]
        row = {i: n for n, i in enumerate(sorted(set(distinct)))}
        return [Predictions(answer[row[i]], completeness[row[i]]) for i in distinct]

    def _answers(
        self,
        part: Batch,
        index: Tensor,
        corruptions: Sequence[tuple[Tensor, Uniforms]],
        device: torch.device,
    ) -> tuple[Tensor, Tensor] | None:
        """Answers and completeness on the CPU; None if memory ran out."""
        try:
            part = part.to(device)
            erased = [
                erase(part, rates[index], uniforms.select(index))
                for rates, uniforms in corruptions
            ]
            answers, completeness = self.model.predict_corruptions(part, erased)
            return answers.float().cpu(), completeness.float().cpu()
        except torch.OutOfMemoryError:
            # Not handled here: the error holds on to the memory until it is gone.
            return None


def _distinct(rates: list[Tensor]) -> list[int]:
    # Rates 0 and 1 leave nothing to chance: for each corruption, the first equal one.
    certain: list[int] = []
    first: list[int] = []
    for i, r in enumerate(rates):
        sure = bool(((r == 0) | (r == 1)).all())
        equal = (j for j in certain if torch.equal(rates[j], r))
        first.append(next(equal, i) if sure else i)
        if sure and first[-1] == i:
            certain.append(i)
    return first


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    names = ("torch", "transformers", "numpy", "safetensors")
    # Not from its metadata: a checkout may be used without being installed.
    own = import_module("lnln").__version__
    return {"lnln": own, **{name: version(name) for name in names}}


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, Tensor], header: Any) -> None:
    """Write tensors and a JSON header as one safetensors file, atomically."""
    ready = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(ready, temporary, metadata={"lnln": json.dumps(header)})
        except SafetensorError as error:  # its name for a full disk
            raise OSError(str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read what `write_tensors` wrote.

    Returns:
        The tensors by name and the header.

    Raises:
        CheckpointError: the file is missing, damaged or not written by lnln.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint; train one with `lnln train`"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = json.loads((file.metadata() or {})["lnln"])
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path}: not a checkpoint of lnln, or damaged ({error}); "
            "train again or restore the file"
        ) from error
    return tensors, header


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, under the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def save_model(path: Path, trained: TrainedModel) -> None:
    """Write a trained model, with its settings and provenance, to one file."""
    tensors = {f"model.{k}": v for k, v in trained.model.state_dict().items()}
    if trained.standardizer is not None:
        for name in _STATISTICS:
            tensors[f"standardizer.{name}"] = getattr(trained.standardizer, name)
    header = {
        "format": _FORMAT,
        "preset": trained.preset.to_dict(),
        "encoder": trained.model.text_encoder.architecture(),
        "provenance": trained.provenance,
    }
    write_tensors(path, tensors, header)


def load_model(path: Path | str, device: torch.device | str = "cpu") -> TrainedModel:
    """Read a trained model.

    Args:
        path: a file that `save_model` wrote.
        device: where to put it; see `resolve_device`.

    Returns:
        `TrainedModel`, in evaluation mode. The text encoder's architecture comes
        from the file: no hub and no network.

    Raises:
        CheckpointError: the file is missing, damaged or of another format.
        SettingsError: this machine has no such device.
    """
    path, where = Path(path), resolve_device(device)
    tensors, header = read_tensors(path)
    try:
        if header["format"] != _FORMAT:
            raise ValueError(f"format {header['format']}, expected {_FORMAT}")
        preset = Preset.from_dict(header["preset"])
        with keeping_random_state():
            model = build_model(preset.model, header["encoder"])
        model.load_state_dict(with_prefix(tensors, "model."))
        standardizer = None
        if f"standardizer.{_STATISTICS[0]}" in tensors:
            standardizer = Standardizer(
                *(tensors[f"standardizer.{name}"] for name in _STATISTICS)
            )
        provenance = header["provenance"]
    except SettingsError as error:  # its method is not there
        raise CheckpointError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: its contents do not fit this version of lnln ({error}); "
            "use the version that wrote it or train again"
        ) from error
    return TrainedModel(model.to(where).eval(), preset, standardizer, provenance)


@contextmanager
def keeping_random_state() -> Iterator[None]:
    """Building a model that is then loaded must not advance the random state."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def checkpoint_name(score: str = "validation") -> str:
    """The file of a run that holds the best epoch by a score."""
    return (
        "model.safetensors" if score == "validation" else f"model-{score}.safetensors"
    )


def selected_checkpoints(selection: str, scheme: str) -> dict[str, str]:
    """Which checkpoint file of a run reports which metric.

    Args:
        selection: "validation" (one file for all), else one file per metric; F1
            goes with its Acc-2 and Corr with MAE, as released.
        scheme: "mosi" or "sims".

    Returns:
        {metric: file name}.
    """
    metrics = METRICS[scheme]
    if selection == "validation":
        return dict.fromkeys(metrics, checkpoint_name())
    owner = {"corr": "mae", "f1": "acc2"}
    owner |= {f"f1_{kind}": f"acc2_{kind}" for kind in ("neg_pos", "neg_nonneg")}
    return {m: checkpoint_name(owner.get(m, m)) for m in metrics}


def open_run(name: Path | str, device: torch.device | str = "cpu") -> TrainedModel:
    """Load a model that is on this machine.

    Args:
        name: a run folder, a checkpoint, or a model that ships with the book, such as
            "mini".
        device: see `resolve_device`.

    Returns:
        The selected epoch; of a run that selects per metric, the one of its MAE.

    Raises:
        CheckpointError: there is none, or it is damaged.
        SettingsError: this machine has no such device.
    """
    path = Path(name)
    if path.is_file():
        return load_model(path, device)
    sums = data_dir() / path / "SHA256SUMS"
    if not path.exists() and sums.is_file():
        path = sums.parent
        _verify(path / checkpoint_name(), sums)
    for score in ("validation", "mae"):
        if (file := path / checkpoint_name(score)).is_file():
            return load_model(file, device)
    records = data_dir().glob("*/record.json")
    raise CheckpointError(
        f"{name}: no run folder, no checkpoint, and no shipped model of this name; "
        f"there are {sorted(record.parent.name for record in records)}. Models of the "
        "hub are named user/name (lnln.from_pretrained)"
    )


def _verify(path: Path, sums: Path) -> None:
    expected = sums.read_text("utf-8").split()[0]
    if (found := sha256_of(path)) != expected:
        raise CheckpointError(
            f"{path}: SHA-256 is {found}, not {expected}; restore it with git checkout"
        )
