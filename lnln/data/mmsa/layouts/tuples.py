"""Splits that are lists of utterances, turned into one array or list a key.

MISA, MAG-BERT and the tutorial of the CMU SDK store ((words, vision, audio), label,
segment) an utterance; MISA also the words themselves, beside their ids.
"""

from __future__ import annotations

import numpy as np

from lnln.data.mmsa.fields import Field, as_text

#: Marks a split whose words are numbers.
WORD_IDS = "word_ids"
# A small file may name one thing a million times; no real one holds so much.
_MOST_ITEMS, _MOST_COLUMNS = 50_000_000, 64
# The silent pause of the forced aligner, which these files keep among the words.
_PAUSE = "sp"


def holds_tuples(value: object) -> bool:
    """Whether it is a list of ((words, vision, audio), label, ...)."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    first = value[0]
    if not isinstance(first, (list, tuple)) or len(first) not in (2, 3):
        return False
    return isinstance(first[0], (list, tuple)) and len(first[0]) in (3, 4)


def split_of_tuples(field: Field, examples: object) -> dict[str, object]:
    """Turn a list of tuples into a split under MMSA's keys.

    Args:
        field: for messages.
        examples: what `holds_tuples` says yes to.

    Returns:
        raw_text (or `WORD_IDS`), audio, vision, regression_labels, id.

    Raises:
        DataError: an utterance is put together otherwise.
    """
    assert isinstance(examples, (list, tuple))
    words: list[list[str] | None] = []
    audio: list[np.ndarray] = []
    vision: list[np.ndarray] = []
    labels, ids = [], []
    total = 0
    for i, example in enumerate(examples):
        if not holds_tuples([example]):
            raise field.error(f"utterance {i} is put together otherwise")
        parts, label, *segment = example
        words.append(_words(parts[3] if len(parts) == 4 else parts[0]))
        total += len(words[-1] or ())
        if total > _MOST_ITEMS:
            raise field.error(f"holds more than {_MOST_ITEMS:,} words")
        pairs = (("vision", parts[1], vision), ("audio", parts[2], audio))
        for name, frames, kept in pairs:
            if not isinstance(frames, np.ndarray) or frames.dtype.kind not in "iuf":
                raise field.error(
                    f"{name} of utterance {i} is a {type(frames).__name__}, expected "
                    "an array of numbers"
                )
            kept.append(frames)
        labels.append(_label(field, i, label))
        ids.append(as_text(_single(segment[0])) if segment else None)
    columns = {len(label) for label in labels}
    if len(columns) > 1:
        raise field.error(f"labels have {sorted(columns)} columns")
    split: dict[str, object] = {
        "vision": vision,
        "audio": audio,
        "regression_labels": np.array(labels, dtype=np.float64),
    }
    named = [i for i in ids if i is not None]
    if len(named) == len(examples):
        split["id"] = named
    if all(row is not None for row in words):
        rows = [row or [] for row in words]
        pauses = sum(row.count(_PAUSE) for row in rows)
        split["raw_text"] = [" ".join(w for w in row if w != _PAUSE) for row in rows]
        if pauses:
            field.mend(f"{pauses} pauses ({_PAUSE!r}) left out of the words")
    else:
        split[WORD_IDS] = True
    return split


def _words(value: object) -> list[str] | None:
    """The words of an utterance; None if there are only numbers for them."""
    if isinstance(value, (str, bytes)):
        value = [value]
    items = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(items, (list, tuple)):
        return None
    words = []
    for item in map(_single, items):
        word = None if isinstance(item, int) else as_text(item)
        if word is None:
            return None
        words.append(word)
    return words


def _label(field: Field, i: int, value: object) -> list[float]:
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        if value.size > _MOST_COLUMNS:
            raise field.error(f"the label of utterance {i} has {value.size} numbers")
        return [float(x) for x in value.ravel()]
    if isinstance(value, (int, float)) and abs(value) < 1 << 63:
        return [float(value)]
    raise field.error(f"the label of utterance {i} is a {type(value).__name__}")


def split_of_records(field: Field, records: object) -> dict[str, object]:
    """Turn a list of dicts, one per utterance, into a split of lists by key.

    Args:
        field: for messages.
        records: the list.

    Returns:
        The split, with the keys that all utterances have.

    Raises:
        DataError: something in the list is no dict.
    """
    assert isinstance(records, (list, tuple))
    common: set[str] | None = None
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            raise field.error(f"utterance {i} is a {type(record).__name__}, no dict")
        keys = {key for key in record if isinstance(key, str)}
        common = keys if common is None else common & keys
    if len(records) * len(common or ()) > _MOST_ITEMS:
        raise field.error(f"holds more than {_MOST_ITEMS:,} values")
    split: dict[str, object] = {
        key: [record[key] for record in records] for key in sorted(common or ())
    }
    for key, values in split.items():
        if "label" in key and isinstance(values, list):
            split[key] = [_single(value) for value in values]
    return split


def _single(value: object) -> object:
    """What an array of one element holds; anything else as it is."""
    one = isinstance(value, np.ndarray) and value.size == 1
    return value.item() if one and isinstance(value, np.ndarray) else value
