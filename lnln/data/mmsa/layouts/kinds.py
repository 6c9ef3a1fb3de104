"""Recognise what kind of file it is, and bring its splits into the layout of MMSA.

Nothing is decided here that a file leaves open without a sentence about it: what was
renamed or converted is reported as mended, what was left out as a note.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lnln.data.batch import SPLITS, DataError, SpecialTokens
from lnln.data.mmsa.fields import REEXTRACT, Field, Log, as_text
from lnln.data.mmsa.labels import LIMITS
from lnln.data.mmsa.layouts.features import FEATURES_KEY, read_features
from lnln.data.mmsa.layouts.shapes import regular
from lnln.data.mmsa.layouts.tuples import (
    holds_tuples,
    split_of_records,
    split_of_tuples,
)

MMSA, TUPLES, MULT, RECORDS = (
    "MMSA: arrays by key",
    "MISA / MAG-BERT / CMU-SDK: a list of ((words, vision, audio), label, segment)",
    "MulT / MultiBench: text as word vectors, labels (N, 1, 1)",
    "a list of dicts, one per utterance",
)
#: What `write_mmsa` adds to the first split, so that a file is read as it was.
OWN_KEY = "lnln"
_SPLIT_NAMES = {
    "train": ("train", "trains", "training", "train_set"),
    "valid": ("valid", "dev", "val", "validation", "development", "valid_set"),
    "test": ("test", "tests", "testing", "test_set"),
}
_KEY_NAMES = {
    "vision": ("visual", "video"),
    "audio": ("acoustic",),
    "id": ("ids", "segment", "segments"),
    "raw_text": ("raw_texts", "transcript", "transcripts", "sentences"),
}
_MODALITY_KEYS = {"text", "text_bert", "raw_text", "audio", "vision"}


@dataclass(frozen=True)
class Layout:
    """A file, recognised.

    Attributes:
        name: what kind of file it is, in words.
        splits: the content of "train", "test" and, unless it is missing or empty,
            "valid", under MMSA's keys.
        scheme: the file's own word for its scheme, if it has one.
        special: the file's own word for its special token ids, if it has one.
        features: the file's own word on how its features were made, or empty.
    """

    name: str
    splits: dict[str, dict[str, object]]
    scheme: str | None = None
    special: SpecialTokens | None = None
    features: dict[str, Any] = field(default_factory=dict)


def recognise(path: Path, content: object, log: Log, labelled: bool = True) -> Layout:
    """Recognise a file.

    Args:
        path: the file, for messages.
        content: what its pickle holds.
        log: gets what is renamed, converted and left out.
        labelled: whether training and test split must be there; else any will do.

    Returns:
        `Layout`; its arrays are still unchecked.

    Raises:
        DataError: it is something else; says what, if it is known.
    """
    if not isinstance(content, dict):
        raise _no_dict(path, content)
    key_of = _split_keys(path, content)
    if not key_of:
        _refuse_unsplit(path, content)
    scheme, special = _own_words(path, content, key_of)
    features = read_features(path, content)
    splits, kinds = {}, set()
    for split in SPLITS:
        value = content.get(key_of.get(split, split))
        optional = split == "valid" or (not labelled and bool(key_of))
        if optional and _is_empty(value):
            continue
        if holds_tuples(value):
            where = Field(path, split, {}, log, "((words, vision, audio), label, id)")
            splits[split] = split_of_tuples(where, value)
            kinds.add(TUPLES)
        elif isinstance(value, (list, tuple)) and value and type(value[0]) is dict:
            where = Field(path, split, {}, log, "utterances")
            splits[split] = split_of_records(where, value)
            kinds.add(RECORDS)
        elif isinstance(value, dict):
            # Its own copy, since keys are added.
            splits[split] = {k: v for k, v in value.items() if isinstance(k, str)}
            kinds.add(MULT if _is_mult(value) else MMSA)
        else:
            shown = ", ".join(repr(key)[:22] for key in list(content)[:8]) or "nothing"
            raise DataError(
                f"{path}: split {split!r} is missing or no dict (found: {shown});"
                f" {REEXTRACT}"
            )
    if not splits:
        raise DataError(f"{path}: all splits are empty; {REEXTRACT}")
    _tell_names(content, key_of, {FEATURES_KEY} if features else set(), log)
    for split, keys in splits.items():
        _rename_keys(Field(path, split, keys, log))
    for key in ("audio", "vision"):
        regular([Field(path, split, keys, log, key) for split, keys in splits.items()])
    name = "; ".join(sorted(kinds))
    return Layout(name, splits, scheme, special, features)


def _no_dict(path: Path, content: object) -> DataError:
    if holds_tuples(content):
        return DataError(
            f"{path}: a list of ((words, vision, audio), label, segment), one split as "
            "MISA stores it, without the two others; store the three lists in one "
            "pickle: {'train': [...], 'dev': [...], 'test': [...]}"
        )
    return DataError(
        f"{path}: holds a {type(content).__name__} instead of a dict of the"
        f" splits {', '.join(SPLITS)}; use a processed MMSA file"
    )


def _split_keys(path: Path, content: dict[object, object]) -> dict[str, str]:
    """Under which key each split stands."""
    key_of: dict[str, str] = {}
    for split, names in _SPLIT_NAMES.items():
        keys = [k for k in content if isinstance(k, str) and k.lower() in names]
        if split in keys:
            keys = [split]
        if len(keys) > 1:
            raise DataError(
                f"{path}: {' and '.join(map(repr, keys))} could both be the split "
                f"{split!r}; name one of them {split!r}"
            )
        if keys:
            key_of[split] = keys[0]
    return key_of


def _refuse_unsplit(path: Path, content: dict[object, object]) -> None:
    """Raise DataError for the features of one clip, or of one undivided set."""
    if not _MODALITY_KEYS & set(content):
        return
    labelled = [k for k in content if isinstance(k, str) and "label" in k]
    shapes = [getattr(content.get(key), "ndim", 0) for key in ("audio", "vision")]
    if labelled and 3 in shapes:
        raise DataError(
            f"{path}: utterances that are not divided into {', '.join(SPLITS)}; store "
            "{'train': {...}, 'valid': {...}, 'test': {...}}, each with these keys"
        )
    raise DataError(
        f"{path}: features of one clip, without splits and labels: nothing to train or "
        "score; to predict from them, store {'test': {...}}, each key with one more "
        "axis in front, and use lnln predict"
    )


def _own_words(
    path: Path, content: dict[object, object], key_of: dict[str, str]
) -> tuple[str | None, SpecialTokens | None]:
    parts = [(split, content[key]) for split, key in key_of.items()]
    told = [(s, p[OWN_KEY]) for s, p in parts if isinstance(p, dict) and OWN_KEY in p]
    if not told:
        return None, None
    split, value = told[0]
    names = ("pad", "unk", "cls", "sep")
    scheme = value.get("scheme") if isinstance(value, dict) else None
    special = value.get("special_tokens") if isinstance(value, dict) else None
    ids = [special.get(n) for n in names] if isinstance(special, dict) else []
    good = [i for i in ids if type(i) is int and 0 <= i < 2**31]
    if not isinstance(scheme, str) or scheme not in LIMITS or len(good) != len(names):
        raise DataError(
            f"{path}: split {split!r}, key {OWN_KEY!r}: is no dict of a scheme and "
            "special_tokens; "
            "remove the key, or write the file again with lnln data convert"
        )
    return scheme, SpecialTokens(*good)


def _is_empty(value: object) -> bool:
    """Whether a split is missing, or has no utterance."""
    if value is None or (isinstance(value, (list, tuple, dict)) and not value):
        return True
    if not isinstance(value, dict):
        return False
    sized = [v for v in value.values() if isinstance(v, (list, tuple, np.ndarray))]
    entries = [v.size if isinstance(v, np.ndarray) else len(v) for v in sized]
    return bool(entries) and not any(entries)


def _is_mult(value: dict[object, object]) -> bool:
    text = value.get("text")
    vectors = isinstance(text, np.ndarray) and text.ndim == 3
    return vectors and "labels" in value and "text_bert" not in value


def _tell_names(
    content: dict[object, object], key_of: dict[str, str], own: set[str], log: Log
) -> None:
    for split, key in key_of.items():
        if key != split:
            log.mended.append(f"split {key!r} read as {split!r}.")
    known = {*key_of.values(), *SPLITS, *own}
    extra = [repr(k)[:22] for k in content if k not in known]
    if extra:
        shown = ", ".join(extra[:8]) + (", ..." if len(extra) > 8 else "")
        log.notes.append(f"left out, since it is none of the three splits: {shown}.")


def _rename_keys(split: Field) -> None:
    content = split.content
    for key, others in _KEY_NAMES.items():
        there = [other for other in others if other in content]
        if key not in content and len(there) == 1:
            content[key] = content[there[0]]
            split.at(key).mend(f"read from {there[0]}")
    text = content.get("text")
    words = isinstance(text, np.ndarray) and text.dtype.kind in "US"
    words |= isinstance(text, (list, tuple)) and all(type(t) is str for t in text)
    if "raw_text" not in content and words:
        content["raw_text"] = text
        split.at("raw_text").mend("read from text")
    ids = content.get("id")
    if isinstance(ids, np.ndarray) and ids.ndim == 2:
        ids = list(ids)
    if isinstance(ids, (list, tuple)) and any(
        isinstance(i, (list, tuple, np.ndarray)) for i in ids
    ):
        joined = [_joined(i) for i in ids]
        content["id"] = joined
        split.at("id").mend(f"parts joined, as in {joined[0]!r:.60}")


def _joined(parts: object) -> object:
    """The parts of an id in one string, as MMSA joins video and clip."""
    if not isinstance(parts, (list, tuple, np.ndarray)):
        return parts
    items = parts.tolist() if isinstance(parts, np.ndarray) else list(parts)
    texts = []
    for item in items if isinstance(items, list) else [items]:
        text = str(item) if isinstance(item, float) else as_text(item)
        if text is None:
            return None
        texts.append(text)
    return "$_$".join(texts)
