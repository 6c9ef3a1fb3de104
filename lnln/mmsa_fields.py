"""Check single fields of an MMSA file: numbers, arrays, token ids and strings.

Every fault is a `DataError` with file, split, key and a remedy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lnln.data import CLS, PAD, DataError

#: The remedy where nothing better is known.
REEXTRACT = "make the file again with the MMSA scripts or use the published one"

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Field:
    """One key of one split of the file.

    Attributes:
        path: the file, for messages.
        split: "train", "valid" or "test".
        content: all keys of the split.
        notes: what was mended, shared by all fields of the file.
        key: the key itself.
    """

    path: Path
    split: str
    content: dict[str, object]
    notes: list[str]
    key: str = ""

    def at(self, key: str) -> Field:
        """The field `key` of the same split."""
        return replace(self, key=key)

    def __bool__(self) -> bool:
        return self.key in self.content

    @property
    def value(self) -> object:
        """What the file holds under the key; a `DataError` if it is missing."""
        if not self:
            raise self.error("the key is missing")
        return self.content[self.key]

    def error(self, fault: str, remedy: str = REEXTRACT) -> DataError:
        """The error to raise for `fault`."""
        return DataError(
            f"{self.path}: split {self.split!r}, key {self.key!r}: {fault}; {remedy}"
        )

    def note(self, sentence: str) -> str:
        """Report what was mended; the sentence with split and key."""
        self.notes.append(f"{self.split} {self.key}: {sentence}.")
        return self.notes[-1]


def read_numbers(field: Field, count: int | None = None) -> Doubles:
    """Read a list or an array of finite numbers.

    Args:
        field: the field; shape (N,), or more axes of size 1.
        count: N, if it is known.

    Returns:
        (N,) float64.

    Raises:
        DataError: something else, another count, NaN or infinite.
    """
    value = field.value
    if isinstance(value, np.ndarray):
        if value.ndim == 0 or value.size != len(value):
            raise field.error(f"has shape {value.shape}, expected (N,)")
        value = value.reshape(len(value)) if value.dtype.kind in "iuf" else list(value)
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise field.error(f"is a {type(value).__name__}, expected a list or array")
    if not isinstance(value, np.ndarray):
        for item in value:
            if type(item) not in (int, float):
                raise field.error(f"holds a {type(item).__name__}, expected numbers")
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except OverflowError:
        raise field.error("holds a number too large for a float") from None
    if count is not None and len(numbers) != count:
        raise field.error(f"has {len(numbers)} entries for {count} samples")
    broken = np.flatnonzero(~np.isfinite(numbers))
    if len(broken):
        raise field.error(
            f"{len(broken)} entries are NaN or infinite, the first in sample"
            f" {broken[0]}",
            "remove these samples from all keys or correct them",
        )
    return numbers


def read_array(field: Field, count: int) -> npt.NDArray[np.floating | np.integer]:
    """Read a numeric array of three axes, none of them empty.

    Args:
        field: the field.
        count: size of the first axis.

    Returns:
        The array as it is stored: read-only, any numeric type.

    Raises:
        DataError: something else, or another count.
    """
    value = field.value
    if not isinstance(value, np.ndarray):
        raise field.error(
            f"is a {type(value).__name__}, expected an array",
            "store numpy.asarray(...) with all samples padded to one length",
        )
    if value.dtype.kind not in "iuf":
        raise field.error(
            f"has the non-numeric type {value.dtype}, expected floats or integers",
            "store a plain numeric array with all samples padded to one length",
        )
    if value.ndim != 3:
        raise field.error(f"has shape {value.shape}, expected three axes")
    if value.shape[0] != count:
        raise field.error(f"has {value.shape[0]} samples, but there are {count} labels")
    if 0 in value.shape:
        raise field.error(f"has shape {value.shape}: the sequences are empty")
    return value


def read_text(field: Field, count: int) -> tuple[Ints, Ints]:
    """Read token ids and their mask.

    Args:
        field: the field; (N, 3, T_l) or (N, T_l, 3): ids, mask, segment ids.
        count: N.

    Returns:
        (N, T_l) token ids with PAD behind the mask, (N,) lengths of at least 1.

    Raises:
        DataError: no such array, impossible ids, no mask of ones and then zeros.
    """
    array = read_array(field, count)
    # Some scripts store (N, T_l, 3); at T_l = 3 the published order is taken.
    if array.shape[1] != 3 and array.shape[2] == 3:
        array = array.transpose(0, 2, 1)
    if array.shape[1] != 3:
        raise field.error(f"has shape {array.shape}, expected (N, 3, T_l)")
    if not np.isfinite(array).all() or (array != np.trunc(array)).any():
        raise field.error("holds token ids that are no integers")
    if not array.any():
        raise field.error("is all zero: the text was never tokenised")
    if (array[:, 0] < 0).any() or (array[:, 0] >= 2**31).any():
        raise field.error("holds token ids below 0 or from 2**31 on")
    if ((array[:, 1] != 0) & (array[:, 1] != 1)).any():
        raise field.error("the attention mask (row 1) holds other values than 0 and 1")
    tokens = array[:, 0].astype(np.int64)
    mask = array[:, 1].astype(bool)
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise field.error(
            "the attention mask (row 1) is not ones followed by zeros",
            "move the tokens of every sentence to the front",
        )
    lengths = mask.sum(axis=1, dtype=np.int64)
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        raise field.error(
            f"{len(empty)} sentences have no token (attention mask all zero), the"
            f" first in sample {empty[0]}",
            "give each at least [CLS] [SEP]",
        )
    _note_text(field, tokens, mask, array[:, 2].astype(bool))
    tokens[~mask] = PAD
    return tokens, lengths


def _note_text(field: Field, tokens: Ints, mask: Bools, segments: Bools) -> None:
    total = len(tokens)
    stray = int(((tokens != PAD) & ~mask).any(axis=1).sum())
    if stray:
        field.note(f"tokens behind the mask set to [PAD] in {stray} of {total} samples")
    other = int((tokens[:, 0] != CLS).sum())
    if other:
        field.note(f"{other} of {total} samples do not begin with [CLS] ({CLS}); kept")
    if segments.any():
        field.note("segment ids other than 0 ignored")


def read_strings(field: Field, count: int) -> tuple[str, ...] | None:
    """Read a list or an array of strings, UTF-8 bytes or integers.

    Args:
        field: the field.
        count: how many there must be.

    Returns:
        The strings; None where the key is missing or holds None.

    Raises:
        DataError: something else, or another count.
    """
    value = field.content.get(field.key)
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.shape != (count,):
        raise field.error(f"has shape {value.shape} for {count} samples")
    try:
        items = value.tolist() if isinstance(value, np.ndarray) else value
    except ValueError:
        raise field.error("holds characters outside Unicode") from None
    if not isinstance(items, (list, tuple)):
        raise field.error(f"is a {type(items).__name__}, expected a list of strings")
    if len(items) != count:
        raise field.error(f"has {len(items)} entries for {count} samples")
    return tuple(_string(field, item) for item in items)


def _string(field: Field, item: object) -> str:
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    # Python refuses to print longer integers.
    if isinstance(item, int) and abs(item) < 1 << 63:
        return str(item)
    if not isinstance(item, str):
        raise field.error(f"holds a {type(item).__name__}, expected strings")
    return item
