"""Read and write the MMSA feature files.

These files of CMU-MOSI, CMU-MOSEI and CH-SIMS come from several scripts and
releases that disagree on padding side, lengths, axis order and key names; other
projects keep the same data in other layouts. Reading brings them all into the one form
of `lnln.data.batch`: what can be mended is mended and reported in `Dataset.mended`,
what is left open is told in `Dataset.notes`, everything else is a `DataError` with a
remedy.
"""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lnln.data.batch import (
    MODALITIES,
    SPLITS,
    Batch,
    DataError,
    Dataset,
    Reading,
    SpecialTokens,
    Split,
)
from lnln.data.errors import SettingsError
from lnln.data.files import atomic_path, sha256_of
from lnln.data.mmsa.fields import (
    Doubles,
    Field,
    Ints,
    Log,
    read_numbers,
    read_strings,
)
from lnln.data.mmsa.labels import (
    check_scheme,
    decide_scheme,
    in_range,
    labels_field,
    read_labels,
    refuse_classes,
    unlabelled,
)
from lnln.data.mmsa.layouts.features import FEATURES_KEY, check_columns
from lnln.data.mmsa.layouts.holdout import (
    check_share,
    check_valid,
    hold_out,
    note_doubles,
)
from lnln.data.mmsa.layouts.kinds import MMSA, OWN_KEY, Layout, recognise
from lnln.data.mmsa.layouts.transcripts import add_transcripts
from lnln.data.mmsa.padding import align, padded_left, read_sequences
from lnln.data.mmsa.text import read_text
from lnln.data.pickles.unpickle import load_plain

_NAMES = {(5, 20): "mosi", (74, 35): "mosei", (33, 709): "sims"}
_POLARITY = ("Negative", "Neutral", "Positive")

_Aligned = tuple[torch.Tensor, torch.Tensor]  # (N, T, d) frames, (N,) lengths


@dataclass(frozen=True)
class _Raw:
    """One split before the scheme is known: key of its labels, labels, ids."""

    field: Field
    labels: Doubles
    ids: tuple[str, ...]


def read_mmsa(
    path: str | Path,
    scheme: str | None = None,
    name: str | None = None,
    encoder: str | None = None,
    transcripts: str | None = None,
    valid_share: float = 0.0,
    labelled: bool = True,
) -> Dataset:
    """Read a feature file of MOSI, MOSEI, SIMS or data like them.

    The layouts of MMSA (aligned or not), MISA, MAG-BERT, the CMU SDK's tutorial, MulT
    and MultiBench are known. Nothing in the file is executed. Audio and vision padded
    on the left are moved to the front, wrong lengths are counted anew, non-finite
    frames become 0; each such mending is a sentence in `Dataset.mended`, the first two
    also a warning. What the file leaves open is a sentence in `Dataset.notes`.

    Args:
        path: the pickle file.
        scheme, encoder, transcripts, valid_share: see `Reading`.
        name: the data set's name; None: the stem of a file that says how its features
            were made; of others "simulated" by the ids, else known feature widths,
            else the file's stem.
        labelled: False for prediction: splits may be absent or without labels, which
            are NaN then, and no utterance is left out for it.

    Returns:
        The splits; without length keys, lengths run to the last non-zero frame.

    Raises:
        DataError: a fault that cannot be mended, with file, split, key and remedy.
        SettingsError: an unknown `scheme`, a share outside (0, 1), or an encoder
            without the tokenizer that is needed.
    """
    check_scheme(scheme)
    check_share(valid_share)
    if valid_share and not labelled:
        raise SettingsError("a validation split is for training; leave out the share")
    path = Path(path)
    log = Log()
    reading = Reading(scheme, encoder, transcripts, valid_share)
    layout = recognise(path, load_plain(path), log, labelled)
    try:
        return _read(path, layout, log, name, reading, labelled)
    except DataError as error:
        if layout.name == MMSA:
            raise
        raise DataError(f"{error} (the file is recognised as {layout.name})") from error


def _read(
    path: Path,
    layout: Layout,
    log: Log,
    name: str | None,
    reading: Reading,
    labelled: bool,
) -> Dataset:
    fields = [Field(path, s, content, log) for s, content in layout.splits.items()]
    if labelled:
        check_valid(path, layout.splits, reading.valid_share)
    if reading.transcripts is not None:
        add_transcripts(fields, reading.transcripts)
    raws = [_read_split(field, labelled) for field in fields]
    fields, labels = [raw.field for raw in raws], [raw.labels for raw in raws]
    if labelled:
        refuse_classes(fields, labels)
    # What was extracted from clips is not the corpus, whatever its clips are called.
    simulated = not layout.features and all(
        i.startswith("simulated") for i in raws[0].ids
    )
    # The simulated corpus has a vocabulary of its own, whatever it trains.
    encoder = None if simulated else reading.encoder
    text = read_text([f.at("text_bert") for f in fields], encoder, layout.special)
    audio = _read_modality([f.at("audio") for f in fields])
    vision = _read_modality([f.at("vision") for f in fields])
    widths = audio[0][0].shape[2], vision[0][0].shape[2]
    named = dict(zip(("audio", "vision"), widths, strict=True))
    check_columns(path, layout.features, named)
    # The simulated corpus has the feature widths of MOSI, and so may anybody's clips.
    known = "simulated" if simulated else _NAMES.get(widths)
    if layout.features:
        known = None
    scored, why = decide_scheme(labels, reading.scheme, layout.scheme, simulated)
    log.notes.insert(0, why)
    splits = {
        raw.field.split: _finish(raw, words, text.special, a, v, scored, labelled)
        for raw, words, a, v in zip(raws, text.splits, audio, vision, strict=True)
    }
    if reading.valid_share:
        splits = hold_out(splits, reading.valid_share, log)
    note_doubles(splits, log)
    if layout.features:
        for key, split in splits.items():
            splits[key] = replace(split, batch=replace(split.batch, gaps=True))
    return Dataset(
        name=name or known or path.stem,
        scheme=scored,
        splits=splits,
        source=str(path),
        sha256=sha256_of(path),
        mended=tuple(log.mended),
        notes=tuple(log.notes),
        layout=layout.name,
        tokenizer=text.tokenizer,
        reading=reading,
        features=layout.features,
    )


def _read_split(field: Field, labelled: bool) -> _Raw:
    field = labels_field(field, labelled)
    labels = read_labels(field) if field or labelled else unlabelled(field)
    field = replace(field, count=len(labels))
    if not len(labels):
        raise field.error("the split is empty")
    if labelled and np.isnan(labels).all():
        raise field.error(
            "all entries are NaN: the split has no labels",
            "take a file with labels; without, there is nothing to learn or to score",
        )
    made_up = tuple(f"{field.split}/{i}" for i in range(len(labels)))
    return _Raw(field, labels, read_strings(field.at("id")) or made_up)


def _read_modality(fields: list[Field]) -> list[_Aligned]:
    """Read and align audio or vision in all splits."""
    for field in fields:
        if not field:
            raise field.error(
                "the key is missing",
                "data without this modality: store numpy.zeros((N, 1, 1)) and train "
                "with --modalities, naming those that are there",
            )
    sequences = [read_sequences(field) for field in fields]
    width = sequences[0].frames.shape[2]
    for field, item in zip(fields, sequences, strict=True):
        if item.frames.shape[2] != width:
            raise field.error(
                f"has {item.frames.shape[2]} features, but {SPLITS[0]} has {width}"
            )
    left = padded_left(sequences)
    aligned = []
    for field, item in zip(fields, sequences, strict=True):
        lengths, mended = align(item, left)
        if mended:
            # Level 4 is the caller of `read_mmsa`.
            warnings.warn(f"{field.path}: {field.mend(mended)}", stacklevel=4)
        aligned.append((torch.from_numpy(item.frames), torch.from_numpy(lengths)))
    return aligned


def _finish(
    raw: _Raw,
    words: tuple[Ints, Ints],
    special: SpecialTokens,
    audio: _Aligned,
    vision: _Aligned,
    scheme: str,
    labelled: bool,
) -> Split:
    field, count = raw.field, len(raw.labels)
    scored = np.flatnonzero(~np.isnan(raw.labels))
    tokens, lengths = map(torch.from_numpy, words)
    labels = in_range(field, raw.labels, scheme)
    batch = Batch(tokens, lengths, *audio, *vision, labels, special)
    extra = {}
    for modality, letter in zip(MODALITIES, "TAV", strict=True):
        part = field.at(f"regression_labels_{letter}")
        if scheme == "sims" and part:
            extra[modality] = in_range(part, read_numbers(part), scheme)
    raw_text = read_strings(field.at("raw_text")) or ("",) * count
    split = Split(batch, raw.ids, raw_text, extra)
    if len(scored) == count or not labelled:
        return split
    field.mend(
        f"{count - len(scored)} of {count} utterances have no label (NaN) and are left "
        "out"
    )
    return split.select(torch.from_numpy(scored))


def write_mmsa(
    dataset: Dataset, path: str | Path, features: dict[str, Any] | None = None
) -> None:
    """Write a data set in the layout of the published MMSA files.

    The file appears whole or not at all, and loads under NumPy 1 and 2. A split without
    any label has none in the file either.

    Args:
        dataset: what to write; where the rest does not tell them, its scheme and its
            special token ids go with it.
        path: the file to write or replace.
        features: how the features were made, as the file will say; None:
            `dataset.features`. If it says so, rows are padded to one more than the
            longest: else a file whose longest clip begins with a gap would be taken
            for padded on the left.

    Raises:
        OutputError: the folder is not writable.
    """
    features = dataset.features if features is None else features
    splits = list(dataset.splits.values())
    sizes = {}
    for m in ("a", "v") if features else ():
        sizes[m] = 1 + max(int(split.batch.lengths(m).max()) for split in splits)
    content: dict[str, dict[str, object]] = {
        name: _published_form(split, sizes) for name, split in dataset.splits.items()
    }
    special = splits[0].batch.special
    scores = [split.batch.labels.double().cpu() for split in splits]
    labels = [part.numpy() for part in scores]
    told = decide_scheme(labels, None, None, dataset.name == "simulated")[0]
    if told != dataset.scheme or special != SpecialTokens():
        # In a split, since other programs take all keys beside the splits for splits.
        own = {"scheme": dataset.scheme, "special_tokens": asdict(special)}
        next(iter(content.values()))[OWN_KEY] = own
    if features:
        content[FEATURES_KEY] = features
    with atomic_path(Path(path)) as draft, open(draft, "wb") as file:
        _Pickler(file, protocol=4).dump(content)


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: object) -> Any:
        # NumPy 2 would name its private numpy._core, which old NumPy 1 lacks.
        if type(obj) is np.ndarray:
            return np.ndarray, ((0,), "b"), obj.__reduce__()[2]
        return NotImplemented


def _published_form(split: Split, sizes: dict[str, int]) -> dict[str, object]:
    batch = split.batch.to("cpu")
    if sizes:
        batch = batch.pad(batch.tokens.shape[1], sizes["a"], sizes["v"])
    mask = batch.mask("l").long()
    content: dict[str, object] = {
        "raw_text": list(split.raw_text),
        "id": list(split.ids),
        "text_bert": torch.stack(
            [batch.tokens, mask, torch.zeros_like(mask)], dim=1
        ).numpy(),
        "audio": batch.audio.numpy(),
        "vision": batch.vision.numpy(),
        "audio_lengths": batch.audio_lengths.tolist(),
        "vision_lengths": batch.vision_lengths.tolist(),
    }
    unknown = batch.labels.isnan()
    if not unknown.any():
        polarity = [int(sign) + 1 for sign in torch.sign(batch.labels).tolist()]
        content["annotations"] = [_POLARITY[i] for i in polarity]
        content["classification_labels"] = np.array(polarity, dtype=np.float32)
    if not unknown.all():
        content["regression_labels"] = batch.labels.numpy()
    for modality, letter in zip(MODALITIES, "TAV", strict=True):
        if modality in split.modality_labels:
            numbers = split.modality_labels[modality].cpu().numpy()
            content[f"regression_labels_{letter}"] = numbers
    return content


def record_path(out: Path) -> Path:
    """Where the record of a converted file stands."""
    return out.with_suffix(".json")


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def convert(path: Path, out: Path, reading: Reading) -> Dataset:
    """Read a file and write it anew.

    Args:
        path: of any layout that `read_mmsa` knows.
        out: the MMSA file to write or replace; its record is `record_path(out)`.
        reading: what is said about the file.

    Returns:
        What was read.

    Raises:
        DataError: the file cannot be read.
        SettingsError: `out` is the file itself or would be its own record.
        OutputError: the folder is not writable.
    """
    record = record_path(out)
    if out.absolute() == path.absolute() or _same(out, path):
        raise SettingsError(f"{out}: is the file itself; name another one to write")
    if record == out:
        raise SettingsError(f"{out}: ends in .json as its record does; end it in .pkl")
    dataset = read_mmsa(path, **reading.to_dict())
    write_mmsa(dataset, out)
    # The first note is on the scheme.
    content = {
        "input": path.name,
        "sha256": dataset.sha256,
        "layout": dataset.layout,
        "scheme": dataset.scheme,
        "scheme_reason": dataset.notes[0],
        "tokenizer": dataset.tokenizer or None,
        "transcripts": reading.transcripts and Path(reading.transcripts).name,
        "valid_share": reading.valid_share,
        "mended": list(dataset.mended),
        "notes": list(dataset.notes[1:]),
        "splits": {name: len(split) for name, split in dataset.splits.items()},
        "output": out.name,
        "output_sha256": sha256_of(out),
    }
    with atomic_path(record) as draft:
        text = json.dumps(content, indent=1, ensure_ascii=False)
        draft.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return dataset
