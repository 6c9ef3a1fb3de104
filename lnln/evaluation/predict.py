"""What a trained model says of clips without labels, and what stands behind it.

Nothing is erased: what is missing in the clips is missing in the form that training
erases to. Where the clips are not of the kind that the model was trained on, that is
an error if it is known, and a warning if it only looks so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lnln.data.batch import MODALITIES, Batch, DataError, Dataset, Reading, Split
from lnln.data.errors import SettingsError
from lnln.data.mmsa.layouts.sameness import compare, shifts
from lnln.data.mmsa.tokenizer import SIMULATED, Tokenizer, load_tokenizer
from lnln.data.opening import open_data, recorded_reading
from lnln.evaluation.sweep import write_csv
from lnln.missing.erasing import fixed_rates, split_uniforms
from lnln.missing.gaps import counts
from lnln.training.checkpoint import TrainedModel, open_run, versions, write_json
from lnln.training.devices import resolve_device
from lnln.training.scoring.distributions import spread

#: Columns of `predictions.csv`; what a model does not tell is empty.
COLUMNS = (
    "id",
    "sentiment",
    "spread",
    "completeness",
    "words",
    "words_present",
    "audio_rows",
    "audio_present",
    "vision_rows",
    "vision_present",
    "cut",
    "note",
)
#: English words a second, for the length of a voice and a face that nobody recorded.
WORDS_A_SECOND = 2.9
_NAMES = {"l": "words", "a": "voice", "v": "face"}


@dataclass(frozen=True)
class Answers:
    """What a model says of clips.

    Attributes:
        table: one line a clip, with `COLUMNS`.
        warnings: what speaks against trusting it, one sentence each.
        about: run, data, versions and warnings, as plain JSON values.
    """

    table: pd.DataFrame
    warnings: tuple[str, ...]
    about: dict[str, Any]

    def write(self, path: Path | str) -> Path:
        """Write the table, and beside it `about` under the same name in .json.

        Args:
            path: of the table, such as predictions.csv.

        Returns:
            Where `about` stands.

        Raises:
            SettingsError: the table's name ends in .json.
            OutputError: the folder is not writable.
        """
        path = Path(path)
        beside = path.with_suffix(".json")
        if beside == path:
            raise SettingsError(f"{path}: is a table; let its name end in .csv")
        write_csv(path, self.table)
        write_json(beside, self.about)
        return beside


def predict(
    run: TrainedModel | Path | str,
    data: Dataset | Split | Path | str,
    *,
    split: str | None = None,
    other_features: bool = False,
    encoder: str | None = None,
    device: torch.device | str = "auto",
) -> Answers:
    """Predict the sentiment of clips, labelled or not.

    Args:
        run: a model, or what `open_run` takes.
        data: a file of features (or "simulated"), an open data set, or clips from
            `utterance`.
        split: which one; None: "test", or the only one.
        other_features: go on where the features are known to be made otherwise than
            those that the model was trained on.
        encoder: the text encoder, where its tokenizer is needed and it has moved.
        device: see `resolve_device`.

    Returns:
        `Answers`.

    Raises:
        CheckpointError: the model is missing or damaged.
        DataError: the file is faulty, or not of the kind that the model reads.
        SettingsError: there is no such split or device.
    """
    if isinstance(run, TrainedModel):
        trained, name = run, "the model"
    else:
        trained, name = open_run(run, resolve_device(device)), str(run)
    origin = trained.provenance["data"]
    if isinstance(data, Split):
        data = Dataset("clips", origin["scheme"], {"test": data}, "the clips", "")
    elif not isinstance(data, Dataset):
        data = _read(trained, str(data), encoder)
    split = _chosen(data, split)
    chosen = data.splits[split]
    batch = _fitting(trained, chosen.batch)
    seen = replace(data, splits={split: replace(chosen, batch=batch)})
    config = trained.model.config
    widths = config.audio_width, config.vision_width
    warnings = compare(name, origin, widths, seen, other_features)
    batch, cut = _cut(trained, batch)
    if (share := int((cut > 0).sum())) > 0:
        warnings.append(
            f"{share} of {len(cut)} clips are longer than {name} reads and were cut "
            f"behind, by up to {float(cut.max()):.0%} (column cut)"
        )
    trained.check(batch, data.source)
    warnings += shifts(batch, trained.standardizer, data.features)
    usable = trained.preset.train.modalities
    if len(usable) < len(MODALITIES):
        warnings.append(f"{name} was trained to read {' and '.join(usable)} only")
    rates = fixed_rates(len(batch), 0.0, usable)
    told = trained.predict(batch, rates, split_uniforms(batch, 0))
    table = _table(chosen.ids, batch, cut, usable)
    table["sentiment"] = _rounded(told.sentiment)
    p = told.probabilities
    table["spread"] = (
        "" if p is None else _rounded(torch.from_numpy(spread(p, origin["scheme"])))
    )
    known = not bool(told.completeness.isnan().any())
    table["completeness"] = _rounded(told.completeness) if known else ""
    about = {
        "run": name,
        "trained_on": origin,
        "method": trained.preset.model.method,
        "epoch": trained.provenance.get("epoch"),
        "data": {
            "source": data.source,
            "sha256": data.sha256,
            "split": split,
            "clips": len(batch),
            "mended": list(data.mended),
            "notes": list(data.notes),
            "features": data.features,
        },
        "trained_with": trained.provenance["versions"],
        "versions": versions(),
        "warnings": warnings,
    }
    return Answers(table[list(COLUMNS)], tuple(warnings), about)


def _read(trained: TrainedModel, spec: str, encoder: str | None) -> Dataset:
    then = recorded_reading(trained.provenance, spec)
    known = encoder or then.encoder or trained.preset.model.encoder.name
    reading = Reading(encoder=known, transcripts=then.transcripts)
    if spec.startswith("simulated"):
        return open_data(spec, trained.preset.name)
    return open_data(spec, reading=reading, labelled=False)


def _chosen(data: Dataset, split: str | None) -> str:
    there = list(data.splits)
    if split is None:
        split = "test" if "test" in there or len(there) > 1 else there[0]
    if split not in there:
        raise SettingsError(
            f"{data.source} has no split {split!r}; choose from {', '.join(there)} "
            "(--split)"
        )
    return split


def _fitting(trained: TrainedModel, batch: Batch) -> Batch:
    """A modality of which nothing is there fits every model."""
    config = trained.model.config
    fitted: dict[str, Tensor] = {}
    for name, width in (
        ("audio", config.audio_width),
        ("vision", config.vision_width),
    ):
        frames = fitted[name] = getattr(batch, name)
        if frames.shape[2] != width and not bool(frames.any()):
            fitted[name] = frames.new_zeros(*frames.shape[:2], width)
    return replace(batch, audio=fitted["audio"], vision=fitted["vision"])


def _cut(trained: TrainedModel, batch: Batch) -> tuple[Batch, Tensor]:
    """Cut clips that are too long, and the largest share of a modality that went."""
    config = trained.model.config
    limits = (
        min(config.text_length, trained.model.text_encoder.longest),
        config.audio_length,
        config.vision_length,
    )
    names = ("token_lengths", "audio_lengths", "vision_lengths")
    changed: dict[str, Any] = {}
    shares = []
    for m, name, limit in zip(MODALITIES, names, limits, strict=True):
        lengths = batch.lengths(m)
        changed[name] = lengths.clamp(max=limit)
        shares.append(1 - changed[name] / lengths)
    sizes = [
        min(batch.sequence(m).shape[1], limit)
        for m, limit in zip(MODALITIES, limits, strict=True)
    ]
    kept = replace(batch, **changed).pad(*sizes)
    # A sentence ends in [SEP], also where it was cut.
    long = batch.token_lengths > limits[0]
    tokens = kept.tokens.clone()
    tokens[long, -1] = batch.special.sep
    return replace(kept, tokens=tokens), torch.stack(shares).amax(dim=0)


def _table(
    ids: tuple[str, ...], batch: Batch, cut: Tensor, usable: tuple[str, ...]
) -> pd.DataFrame:
    total, there = counts(batch)
    table = pd.DataFrame({"id": list(ids)})
    for column, name in enumerate(("words", "audio", "vision")):
        rows = "words" if name == "words" else f"{name}_rows"
        table[rows] = total[:, column].tolist()
        table[f"{name}_present"] = there[:, column].tolist()
    table["cut"] = _rounded(cut)
    read = torch.tensor([m in usable for m in MODALITIES])
    table["note"] = [
        _note([m for m, n in zip(MODALITIES, row, strict=True) if n == 0], empty)
        for row, empty in zip(
            there.tolist(), (there * read == 0).all(dim=1).tolist(), strict=True
        )
    ]
    return table


def _rounded(values: Tensor) -> list[float]:
    # Further digits differ from machine to machine.
    return [round(value, 4) for value in values.tolist()]


def _note(missing: list[str], empty: bool) -> str:
    if empty:
        return "nothing is present: the answer is close to a constant"
    return f"no {' and no '.join(_NAMES[m] for m in missing)}" if missing else ""


def tokenizer_of(trained: TrainedModel) -> Tokenizer:
    """The tokenizer that made the token ids which a model was trained on.

    Raises:
        SettingsError: it is not known, or not on this machine.
    """
    origin = trained.provenance["data"]
    name = trained.preset.model.encoder.name
    name = name or origin.get("features", {}).get("text", {}).get("tokenizer")
    if name is None and origin["name"] == "simulated":
        name = SIMULATED
    if name is None:
        raise SettingsError(
            "the run does not say whose token ids it was trained on, so it reads no "
            "typed sentence; give a file of features"
        )
    return load_tokenizer(name)


def utterance(
    trained: TrainedModel,
    text: str = "",
    audio: Any = None,
    vision: Any = None,
    name: str = "clip",
) -> Split:
    """One clip from what is at hand, for `predict`; what is not given is missing.

    Args:
        trained: who is to read it.
        text: the sentence; words outside of the vocabulary become [UNK].
        audio, vision: (T_m, d_m) rows in the units of the training, zero where there
            is a gap; None: missing, zero rows over the length that a speaker would take
            (half of the longest where the rate of the rows is not known).
        name: its id.

    Returns:
        A split of one clip.

    Raises:
        DataError: rows of another shape.
        SettingsError: the tokenizer is not known.
    """
    config = trained.model.config
    features = trained.provenance["data"].get("features", {})
    tokenizer = tokenizer_of(trained)
    (ids,) = tokenizer.encode([text])
    words = max(1, len(text.split()))
    parts: dict[str, Tensor] = {}
    for key, rows, width, longest in (
        ("audio", audio, config.audio_width, config.audio_length),
        ("vision", vision, config.vision_width, config.vision_length),
    ):
        if rows is None:
            rate = features.get(key, {}).get("rate")
            length = math.ceil(rate * words / WORDS_A_SECOND) if rate else longest // 2
            rows = torch.zeros(max(1, min(length, longest)), width)
        frames = torch.as_tensor(rows, dtype=torch.float32)
        if frames.ndim != 2 or not len(frames) or frames.shape[1] != width:
            raise DataError(
                f"{name}: {key} is {tuple(frames.shape)}, expected (T, {width}) rows"
            )
        parts |= {key: frames[None], f"{key}_lengths": torch.tensor([len(frames)])}
    batch = Batch(
        tokens=torch.tensor([ids]),
        token_lengths=torch.tensor([len(ids)]),
        audio=parts["audio"],
        audio_lengths=parts["audio_lengths"],
        vision=parts["vision"],
        vision_lengths=parts["vision_lengths"],
        labels=torch.tensor([math.nan]),
        special=tokenizer.special,
        gaps=True,
    )
    return Split(batch, (name,), (text,))
