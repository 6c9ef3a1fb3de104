"""Check single fields of an MMSA file: numbers, arrays and strings.

Every fault is a `DataError` with file, split, key and a remedy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lnln.data.batch import DataError

#: The remedy where nothing better is known.
REEXTRACT = "make the file again with the MMSA scripts or use the published one"

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Log:
    """What there is to say about a file that is being read.

    Attributes:
        mended: see `Dataset.mended`.
        notes: see `Dataset.notes`.
    """

    mended: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Field:
    """One key of one split of the file.

    Attributes:
        path: the file, for messages.
        split: "train", "valid" or "test".
        content: all keys of the split.
        log: shared by all fields of the file.
        key: the key itself.
        count: N, the utterances of the split, once its labels are read.
    """

    path: Path
    split: str
    content: dict[str, object]
    log: Log
    key: str = ""
    count: int | None = None

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

    def mend(self, sentence: str) -> str:
        """Report what was mended; the sentence with split and key."""
        self.log.mended.append(f"{self.split} {self.key}: {sentence}.")
        return self.log.mended[-1]

    def note(self, sentence: str) -> None:
        """Report what the file leaves open, and how it was taken."""
        self.log.notes.append(f"{self.split} {self.key}: {sentence}.")


def read_numbers(field: Field, gaps: bool = False) -> Doubles:
    """Read a list or an array of finite numbers.

    Args:
        field: the field; shape (N,), or more axes of size 1.
        gaps: NaN may stand for a number that is not there.

    Returns:
        (N,) float64.

    Raises:
        DataError: something else, another count, infinite, or NaN without `gaps`.
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
    if field.count not in (None, len(numbers)):
        raise field.error(f"has {len(numbers)} entries for {field.count} samples")
    broken = np.flatnonzero(np.isinf(numbers) | (np.isnan(numbers) & (not gaps)))
    if len(broken):
        kinds = "infinite" if gaps else "NaN or infinite"
        raise field.error(
            f"{len(broken)} entries are {kinds}, the first in sample {broken[0]}",
            "remove these samples from all keys or correct them",
        )
    return numbers


def read_array(field: Field) -> npt.NDArray[np.floating | np.integer]:
    """Read a numeric array of three axes, N long and none of them empty.

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
    if len(value) != field.count:
        raise field.error(
            f"has {len(value)} samples, but there are {field.count} labels"
        )
    if 0 in value.shape:
        raise field.error(f"has shape {value.shape}: the sequences are empty")
    return value


def read_strings(field: Field) -> tuple[str, ...] | None:
    """Read a list or an array of N strings, UTF-8 bytes or integers.

    Returns:
        The strings; None where the key is missing or holds None.

    Raises:
        DataError: something else, or another count.
    """
    value, count = field.content.get(field.key), field.count
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.shape != (count or value.size,):
        raise field.error(f"has shape {value.shape} for {count or value.size} samples")
    try:
        items = value.tolist() if isinstance(value, np.ndarray) else value
    except ValueError:
        raise field.error("holds characters outside Unicode") from None
    if not isinstance(items, (list, tuple)):
        raise field.error(f"is a {type(items).__name__}, expected a list of strings")
    if count not in (None, len(items)):
        raise field.error(f"has {len(items)} entries for {count} samples")
    texts = []
    for item in items:
        if (text := as_text(item)) is None:
            raise field.error(f"holds a {type(item).__name__}, expected strings")
        texts.append(text)
    return tuple(texts)


def as_text(value: object) -> str | None:
    """A string, UTF-8 bytes or an integer as text; None for anything else."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    # Python refuses to print longer integers.
    if isinstance(value, int) and abs(value) < 1 << 63:
        return str(value)
    return value if isinstance(value, str) else None
