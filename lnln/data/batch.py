"""The one in-memory form of every data source: padded tensors with lengths.

A `Batch` holds tensors only and is what models see; a `Split` adds what people
read (ids, transcripts); a `Dataset` holds the three splits and where they came
from. `lnln.data.simulated.corpus` and `lnln.data.mmsa.reader` produce them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lnln.data.errors import UserError

#: Modalities in the paper's order of importance: language, audio, vision.
MODALITIES = ("l", "a", "v")
#: Token ids shared by bert-base-uncased, bert-base-chinese and the simulated corpus.
PAD, UNK, CLS, SEP, MASK = 0, 100, 101, 102, 103
SPLITS = ("train", "valid", "test")

#: The values that labels can take, by scheme: means of five annotators' scores.
LABEL_VALUES: dict[str, NDArray[np.float64]] = {
    "mosi": np.round(np.arange(-15, 16) / 5.0, 1),
    "sims": np.round(np.arange(-10, 11) / 10.0, 1),
}


class DataError(UserError, ValueError):
    """A fault in a data file; the message names file, split, key and remedy."""


@dataclass(frozen=True)
class SpecialTokens:
    """The token ids that a text encoder's vocabulary gives to what is no word.

    The defaults are those of BERT, English and Chinese, and of the simulated corpus.

    Attributes:
        pad: behind the sentence.
        unk: in the place of an erased word, or of one that is not in the vocabulary.
        cls: in front of the sentence.
        sep: at its end.
    """

    pad: int = PAD
    unk: int = UNK
    cls: int = CLS
    sep: int = SEP

    def __str__(self) -> str:
        return f"[CLS] {self.cls}, [SEP] {self.sep}, [PAD] {self.pad}, [UNK] {self.unk}"


@dataclass(frozen=True)
class Reading:
    """What a user says about a file that is to be read.

    Attributes:
        scheme: "mosi" (labels in [-3, 3]) or "sims" ([-1, 1]); None: decided by the
            range of the labels.
        encoder: folder or hub name of the text encoder whose tokenizer makes token
            ids where the file has none, and must fit those that it has; None: unknown.
        transcripts: path of a CSV table with the columns id (or video_id and clip_id)
            and text, for a file without words; None: there is none.
        valid_share: share of the training split to validate on, for a file without
            validation split; 0: such a file is an error.
    """

    scheme: str | None = None
    encoder: str | None = None
    transcripts: str | None = None
    valid_share: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The answers as plain JSON values; `Reading(**values)` is the inverse."""
        return asdict(self)


def valid_positions(lengths: Tensor, size: int) -> Tensor:
    """Mark the real (non-padding) positions of padded sequences.

    Args:
        lengths: (B,) number of real positions, each at most `size`.
        size: padded length T.

    Returns:
        (B, T) bool, True at real positions.
    """
    return torch.arange(size, device=lengths.device) < lengths[:, None]


@dataclass(frozen=True)
class Batch:
    """B utterances as padded tensors; padding stands behind the real positions.

    Attributes:
        tokens: (B, T_l) int64 token ids, `[CLS] ... [SEP] [PAD]...`.
        token_lengths: (B,) int64 tokens with [CLS] and [SEP], at least 1.
        audio: (B, T_a, d_a) float32 frames, zero behind the length.
        audio_lengths: (B,) int64 real frames, at least 1.
        vision: (B, T_v, d_v) float32 frames, zero behind the length.
        vision_lengths: (B,) int64 real frames, at least 1.
        labels: (B,) float32 sentiment in [-3, 3] (SIMS: [-1, 1]); NaN where there is
            none, which only prediction allows.
        special: which token ids are no words.
        gaps: whether rows of zeros and [UNK] words are known to be gaps of the
            recording, as a file tells that says how its features were made.
    """

    tokens: Tensor
    token_lengths: Tensor
    audio: Tensor
    audio_lengths: Tensor
    vision: Tensor
    vision_lengths: Tensor
    labels: Tensor
    special: SpecialTokens = SpecialTokens()
    gaps: bool = False

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.tokens.device

    def sequence(self, modality: str) -> Tensor:
        """The padded tensor of modality "l", "a" or "v"."""
        return {"l": self.tokens, "a": self.audio, "v": self.vision}[modality]

    def lengths(self, modality: str) -> Tensor:
        """The (B,) real lengths of modality "l", "a" or "v"."""
        return {
            "l": self.token_lengths,
            "a": self.audio_lengths,
            "v": self.vision_lengths,
        }[modality]

    def mask(self, modality: str) -> Tensor:
        """The (B, T_m) bool mask of real positions of modality "l", "a" or "v"."""
        return valid_positions(self.lengths(modality), self.sequence(modality).shape[1])

    def select(self, index: Tensor) -> Batch:
        """The utterances at `index` (any integer or bool index tensor)."""
        parts: dict[str, Any] = {n: getattr(self, n)[index] for n in _TENSORS}
        return replace(self, **parts)

    def trim(self) -> Batch:
        """Cut every sequence to the longest real length in the batch."""
        return self.pad(*(int(self.lengths(m).max()) for m in MODALITIES))

    def pad(self, text_length: int, audio_length: int, vision_length: int) -> Batch:
        """Pad (or cut) the sequences to these lengths with [PAD] and zero frames."""
        return replace(
            self,
            tokens=_resized(self.tokens, text_length, self.special.pad),
            audio=_resized(self.audio, audio_length),
            vision=_resized(self.vision, vision_length),
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        parts: dict[str, Any] = {
            n: getattr(self, n).to(device, non_blocking=True) for n in _TENSORS
        }
        return replace(self, **parts)


def _resized(x: Tensor, size: int, value: float = 0) -> Tensor:
    missing = max(0, size - x.shape[1])
    extra = x.new_full((x.shape[0], missing, *x.shape[2:]), value)
    return torch.cat([x, extra], dim=1) if missing else x[:, :size]


_FLAGS = ("special", "gaps")
_TENSORS = [f.name for f in fields(Batch) if f.name not in _FLAGS]


def joined(batches: Sequence[Batch]) -> Batch:
    """The utterances of several batches as one; all are padded to the same lengths."""
    parts: dict[str, Any] = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in _TENSORS
    }
    return replace(batches[0], **parts)


@dataclass(frozen=True)
class Split:
    """One split: its tensors and what people read of it.

    Attributes:
        batch: all N utterances.
        ids: N utterance ids.
        raw_text: N transcripts.
        modality_labels: SIMS only: {"l" | "a" | "v": (N,) float32}, else empty.
    """

    batch: Batch
    ids: tuple[str, ...]
    raw_text: tuple[str, ...]
    modality_labels: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.batch)

    def select(self, index: Tensor) -> Split:
        """The utterances at `index`, (n,) int64."""
        places = index.tolist()
        return Split(
            self.batch.select(index),
            tuple(self.ids[i] for i in places),
            tuple(self.raw_text[i] for i in places),
            {m: labels[index] for m, labels in self.modality_labels.items()},
        )


@dataclass(frozen=True)
class Dataset:
    """Three splits and their origin.

    Attributes:
        name: "simulated", "mosi", "mosei", "sims" or the file's stem.
        scheme: how it is scored: "mosi" (labels in [-3, 3]; also MOSEI and the
            simulated corpus) or "sims" (labels in [-1, 1]).
        splits: {"train" | "valid" | "test": Split}; all three, unless labels were not
            asked for.
        source: the file's path, or the call that simulated it.
        sha256: of the file, or of the simulated arrays.
        mended: one sentence per kind of fault that was mended on reading.
        notes: one sentence per thing that the file leaves open, and how it was taken.
        layout: what kind of file it was, in words; empty for simulated data.
        tokenizer: the text encoder whose tokenizer made the token ids; empty: the file
            has them.
        reading: what its user said about the file.
        features: what the file says of how its features were made, as plain JSON
            values (see `lnln.data.mmsa.layouts.features`); empty: nothing.
    """

    name: str
    scheme: str
    splits: dict[str, Split]
    source: str
    sha256: str
    mended: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    layout: str = ""
    tokenizer: str = ""
    reading: Reading = Reading()
    features: dict[str, Any] = field(default_factory=dict)

    @property
    def train(self) -> Split:
        """The training split."""
        return self.splits["train"]

    @property
    def valid(self) -> Split:
        """The validation split."""
        return self.splits["valid"]

    @property
    def test(self) -> Split:
        """The test split."""
        return self.splits["test"]


@dataclass(frozen=True)
class Standardizer:
    """Column means and scales of audio and vision, fitted on training rows.

    Neither the paper nor the released code scales the columns; raw COVAREP and
    similar features differ by orders of magnitude, so `lnln train` does by default.

    Attributes:
        audio_mean, audio_scale: (d_a,) float32.
        vision_mean, vision_scale: (d_v,) float32.
    """

    audio_mean: Tensor
    audio_scale: Tensor
    vision_mean: Tensor
    vision_scale: Tensor

    @classmethod
    def fit(cls, batch: Batch) -> Standardizer:
        """Fit on the real rows of `batch`; a constant column keeps scale 1."""
        return cls(
            *_moments(batch.audio, batch.mask("a")),
            *_moments(batch.vision, batch.mask("v")),
        )

    def __call__(self, batch: Batch) -> Batch:
        """Standardise the real rows; padding stays zero."""
        return replace(
            batch,
            audio=_scaled(batch, "a", self.audio_mean, self.audio_scale),
            vision=_scaled(batch, "v", self.vision_mean, self.vision_scale),
        )


def _moments(frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    # In pieces, since a float64 copy of MOSEI's audio would be 5 GB.
    pieces = list(zip(frames.split(1024), mask.split(1024), strict=True))
    zero = frames.new_zeros(frames.shape[-1], dtype=torch.float64)
    count = sum(int(_measured(f, m).sum()) for f, m in pieces)
    total = sum((f[_measured(f, m)].double().sum(dim=0) for f, m in pieces), zero)
    mean = total / max(count, 1)
    squares = sum(
        ((f[_measured(f, m)].double() - mean).square().sum(dim=0) for f, m in pieces),
        zero,
    )
    scale = (squares / max(count, 1)).sqrt()
    # A column that varies only by rounding would be blown up to noise.
    constant = scale <= 1e-6 * mean.abs()
    scale = torch.where(constant, torch.ones_like(scale), scale)
    return mean.float(), scale.float()


def _measured(frames: Tensor, mask: Tensor) -> Tensor:
    # A row that is zero throughout is a gap of the recording, not a measurement, and
    # stays zero: that is what an erased frame looks like too.
    return mask & frames.ne(0).any(dim=-1)


def _scaled(batch: Batch, modality: str, mean: Tensor, scale: Tensor) -> Tensor:
    frames = batch.sequence(modality)
    scaled = frames - mean.to(frames.device)
    scaled /= scale.to(frames.device)
    scaled *= _measured(frames, batch.mask(modality))[..., None]
    return scaled


def batches_by_length(batch: Batch, size: int) -> Iterator[Tensor]:
    """Yield index tensors of batches whose members have similar lengths.

    Args:
        batch: the utterances.
        size: utterances per batch; the last one may be smaller.

    Yields:
        (size,) int64 CPU indices; together each utterance once.
    """
    total = sum(batch.lengths(m).cpu() for m in MODALITIES)
    assert isinstance(total, Tensor)
    yield from torch.argsort(total, stable=True).split(size)
