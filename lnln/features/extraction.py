"""From a table of clips to a data set: what `lnln features` does."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lnln.data.batch import SPLITS, Batch, DataError, Dataset, Split
from lnln.data.errors import SettingsError
from lnln.data.mmsa.layouts.features import FORMAT, fingerprint
from lnln.data.mmsa.tokenizer import Tokenizer, load_tokenizer
from lnln.features.audio import AudioExtractor, audio_extractor
from lnln.features.clips import Clip, read_clips
from lnln.features.gaps import (
    MUTED_BELOW,
    MUTED_FOR,
    Floats,
    Notes,
    is_clipped,
    is_frozen,
    muted,
    pool_frames,
    pool_times,
)
from lnln.features.media import Media, open_media, read_pictures, read_sound
from lnln.features.vision import NoPicture, OpenFace, Table, Track, Vision
from lnln.features.words import (
    Sentence,
    as_sentence,
    between,
    no_transcript,
    read_words,
    split_text,
)

# Seconds of a clip from which it is probably a recording of many utterances.
_LONG = 60.0
# Between the last time of a table and the end of the recording, in seconds.
_OTHER_END = 0.5


@dataclass(frozen=True)
class Extraction:
    """What came of a table of clips.

    Attributes:
        dataset: the splits that have clips; labels NaN where there are none. Its
            `features` say how the features were made.
        notes: one sentence per kind of thing that was missing or odd.
        bad: what was wrong with each clip that was left out.
    """

    dataset: Dataset
    notes: tuple[str, ...]
    bad: tuple[str, ...]


@dataclass(frozen=True)
class _Utterance:
    clip: Clip
    sentence: Sentence
    audio: Floats
    vision: Floats


@dataclass(frozen=True)
class _Maker:
    """What turns a clip into rows and tokens."""

    audio: AudioExtractor
    vision: Vision
    tokenizer: Tokenizer
    rate: float
    unclear: float
    notes: Notes

    def __call__(self, clip: Clip) -> _Utterance:
        media = open_media(clip.path)
        start, end = clip.stretch(media.duration)
        if clip.start is None and clip.end is None and end > _LONG:
            self.notes.add(
                clip.id, "last over 60 s: cut utterances of a few seconds (start, end)"
            )
        audio = self._sound(clip, media, start, end)
        vision = self._picture(clip, media, start, end)
        return _Utterance(clip, self._words(clip, start, end), audio, vision)

    def _sound(self, clip: Clip, media: Media, start: float, end: float) -> Floats:
        rate = self.audio.sample_rate
        samples, missing = read_sound(media, rate, start, end)
        if not media.sound:
            self.notes.add(clip.id, "have no sound")
        elif self.audio.name != "none":
            missing |= muted(samples, rate)
            self.notes.heard += end - start
            self.notes.lost += float(missing.mean()) * (end - start)
            if missing.any():
                self.notes.add(clip.id, "have sound that is muted or missing in part")
            if is_clipped(samples, rate):
                self.notes.add(clip.id, "have clipped sound")
        rows, there = self.audio(samples, missing)
        return _checked(self.audio, rows, there, len(rows))[0]

    def _picture(self, clip: Clip, media: Media, start: float, end: float) -> Floats:
        count = max(1, math.ceil((end - start) * self.rate - 1e-6))
        track = self._track(clip, media, start, end)
        if track is None or not len(track.values):
            if self.vision.name != "none":
                self.notes.add(clip.id, "have no picture")
            return np.zeros((count, 0), np.float32)
        if is_frozen(track.values, track.available, track.times):
            self.notes.add(
                clip.id, "have a picture that stands still for half a second"
            )
        pool = getattr(self.vision, "pool", 0)
        if pool:
            rows, there = pool_frames(track.values, track.available, pool, least=0)
        else:
            rows, there = pool_times(
                track.values, track.available, track.times, self.rate, count
            )
        if not there.all():
            self.notes.add(clip.id, "have rows without a face")
        return rows

    def _track(
        self, clip: Clip, media: Media, start: float, end: float
    ) -> Track | None:
        if isinstance(self.vision, (OpenFace, Table)):
            path = clip.openface if self.vision.name == "openface" else clip.table
            if path is None:
                return None
            track = self.vision.read(path)
            if abs(float(track.times[-1]) - media.duration) > _OTHER_END:
                self.notes.add(
                    clip.id,
                    f"have a {self.vision.name} file that ends over 0.5 s before or "
                    "behind the recording: is it of another one?",
                )
            return track.between(start, end)
        if self.vision.name == "none":
            return None
        values, available, times = [], [], []
        for frames, seconds in read_pictures(media, start, end):
            made, there = self.vision(frames, seconds)
            made, there = _checked(self.vision, made, there, len(frames))
            values.append(made)
            available.append(there)
            times.append(seconds)
        if not values:
            return None
        return Track(
            np.concatenate(values),
            np.concatenate(available),
            np.concatenate(times),
            tuple(self.vision.columns),
        )

    def _words(self, clip: Clip, start: float, end: float) -> Sentence:
        words = split_text(clip.text or "")
        if clip.words is not None:
            words = read_words(clip.words, clip.id)
            if clip.start is not None or clip.end is not None:
                words = between(words, start, end)
        sentence = as_sentence(words, self.tokenizer, self.unclear)
        if sentence is None:
            self.notes.add(clip.id, "have no words: [UNK] stand for about as many")
            return no_transcript(end - start, self.tokenizer)
        if sentence.unclear:
            self.notes.add(clip.id, "have words that were not understood")
        if sentence.cut:
            self.notes.add(
                clip.id,
                f"have more words than the {self.tokenizer.longest} tokens allow",
            )
        return sentence


def _checked(
    extractor: AudioExtractor | Vision, values: Any, available: Any, count: int
) -> tuple[Floats, Any]:
    """Rows of the promised form, zero where they are not there or no number."""
    rows, there = np.asarray(values, np.float32), np.asarray(available)
    width = len(extractor.columns)
    if rows.shape != (count, width) or there.shape != (count,) or there.dtype != bool:
        raise SettingsError(
            f"extractor {extractor.name!r} gives values {rows.shape} and available "
            f"{there.shape} of {there.dtype} for {count} frames and its {width} "
            f"columns; give ({count}, {width}) and ({count},) bool"
        )
    there = there & np.isfinite(rows).all(axis=1)
    return np.where(there[:, None], rows, 0), there


def _check_extractor(extractor: AudioExtractor | Vision) -> None:
    for name in ("name", "version", "parameters", "columns"):
        if not hasattr(extractor, name):
            raise SettingsError(
                f"extractor {type(extractor).__name__} has no {name!r}; it needs name, "
                "version, parameters and columns, which the file of features records"
            )
    try:
        json.dumps(extractor.parameters, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"extractor {extractor.name!r}: its parameters are no plain JSON values "
            f"({error}); use numbers, strings, lists and dicts"
        ) from error


def extract(
    clips: str | Path | Sequence[Clip],
    *,
    audio: str | AudioExtractor = "plain",
    vision: Vision | None = None,
    encoder: str = "bert-base-uncased",
    rate: float = 12.5,
    unclear: float = 0.5,
    skip_bad: bool = False,
    progress: bool = False,
) -> Extraction:
    """Extract the features of clips.

    What is really missing gets the form of what is erased: rows of zeros, and [UNK].
    `write_mmsa(extraction.dataset, path)` makes a file of it.

    Args:
        clips: a table (see `read_clips`), or its rows.
        audio: "plain", "sims", "egemaps", "none" or an extractor of sound.
        vision: an `OpenFace`, a `Table`, or any extractor of frames (see
            `VisionExtractor`); None: by the columns that the table of clips has,
            openface or table, else the picture is left out.
        encoder: folder or hub name of the text encoder whose tokenizer splits words;
            "simulated" for the vocabulary of the simulated corpus.
        rate: rows a second of vision, and of "plain"; divides 50.
        unclear: words of a lower confidence count as not understood.
        skip_bad: leave out clips that cannot be read and go on.
        progress: show a bar.

    Raises:
        DataError: a fault in the table or, without `skip_bad`, in a clip, with file,
            row and remedy; or no clip is left.
        SettingsError: a setting or an extractor that makes no sense.
        MissingPackageError: a package that is asked for is not installed.
    """
    if not 0 <= unclear <= 1:
        raise SettingsError(f"unclear {unclear} is impossible; a confidence in [0, 1]")
    name = "clips" if not isinstance(clips, (str, Path)) else Path(clips).stem
    source = name if not isinstance(clips, (str, Path)) else str(clips)
    rows = read_clips(clips) if isinstance(clips, (str, Path)) else list(clips)
    # Also checks the rate.
    sound = audio_extractor(audio, rate) if isinstance(audio, str) else audio
    seen = _vision_for(rows, vision)
    for extractor in (sound, seen):
        _check_extractor(extractor)
    tokenizer = load_tokenizer(encoder)
    maker = _Maker(sound, seen, tokenizer, rate, unclear, Notes())
    made, bad = [], []
    for clip in tqdm(rows, desc="extracting", unit="clip", disable=not progress):
        try:
            made.append(maker(clip))
        except DataError as error:
            fault = f"{clip.where}: {error}" if clip.where else str(error)
            if not skip_bad:
                raise DataError(fault) from error
            bad.append(fault)
    if not made:
        raise DataError(f"{source}: no clip is left; the first fault: {bad[0]}")
    features = _description(maker, encoder)
    splits = _splits(made, maker)
    dataset = Dataset(
        name=name,
        scheme="mosi",
        splits=splits,
        source=source,
        sha256=_digest(splits),
        tokenizer=encoder,
        features=features,
    )
    return Extraction(dataset, maker.notes.sentences(len(rows)), tuple(bad))


def _vision_for(clips: Sequence[Clip], vision: Vision | None) -> Vision:
    listed = {
        "openface": any(clip.openface for clip in clips),
        "table": any(clip.table for clip in clips),
    }
    if vision is None:
        if listed["openface"]:
            return OpenFace()
        return Table() if listed["table"] else NoPicture()
    reads_files = isinstance(vision, (OpenFace, Table))
    if reads_files and not listed.get(vision.name, True):
        raise SettingsError(
            f"vision {vision.name!r} reads files that the table of clips names; add a "
            f"column {vision.name!r}, or choose another --vision"
        )
    return vision


def _description(maker: _Maker, encoder: str) -> dict[str, Any]:
    """How the features were made, as plain JSON values."""
    heard = {
        **maker.audio.parameters,
        "muted": {"below_dbfs": MUTED_BELOW, "for_s": MUTED_FOR},
    }
    pooled = getattr(maker.vision, "pool", 0)
    return {
        "format": FORMAT,
        "made_by": f"lnln {import_module('lnln').__version__}",
        "padding": "right",
        "text": {
            # Of a folder its name: where it lies is nobody else's business.
            "tokenizer": Path(encoder).name if Path(encoder).is_dir() else encoder,
            "vocab_sha256": maker.tokenizer.vocab_sha256,
            "unclear_below": maker.unclear,
        },
        "audio": _of(maker.audio, heard, maker.audio.rate),
        "vision": _of(
            maker.vision, maker.vision.parameters, None if pooled else maker.rate
        ),
    }


def _of(
    extractor: AudioExtractor | Vision, parameters: dict[str, Any], rate: float | None
) -> dict[str, Any]:
    packages = ("av", *getattr(extractor, "packages", ()))
    told: dict[str, Any] = {
        "extractor": extractor.name,
        "version": extractor.version,
        "parameters": parameters,
        "columns": list(extractor.columns),
        "rate": rate,
        "libraries": {package: metadata.version(package) for package in packages},
    }
    return {**told, "fingerprint": fingerprint(told)}


def _splits(made: Sequence[_Utterance], maker: _Maker) -> dict[str, Split]:
    width = max(1, len(maker.vision.columns))
    size = {
        "l": max(len(u.sentence.ids) for u in made),
        "a": max(len(u.audio) for u in made),
        "v": max(len(u.vision) for u in made),
    }
    splits = {}
    for split in SPLITS:
        mine = [u for u in made if u.clip.split == split]
        if not mine:
            continue
        special = maker.tokenizer.special
        tokens = torch.full((len(mine), size["l"]), special.pad, dtype=torch.int64)
        audio = torch.zeros(len(mine), size["a"], len(maker.audio.columns))
        vision = torch.zeros(len(mine), size["v"], width)
        for i, u in enumerate(mine):
            tokens[i, : len(u.sentence.ids)] = torch.tensor(u.sentence.ids)
            audio[i, : len(u.audio)] = torch.from_numpy(u.audio)
            if u.vision.shape[1]:
                vision[i, : len(u.vision)] = torch.from_numpy(u.vision)
        labels = [math.nan if u.clip.label is None else u.clip.label for u in mine]
        batch = Batch(
            tokens,
            _lengths(u.sentence.ids for u in mine),
            audio,
            _lengths(u.audio for u in mine),
            vision,
            _lengths(u.vision for u in mine),
            torch.tensor(labels),
            special,
            gaps=True,
        )
        ids = tuple(u.clip.id for u in mine)
        splits[split] = Split(batch, ids, tuple(u.sentence.text for u in mine))
    return splits


def _lengths(sequences: Any) -> Tensor:
    return torch.tensor([len(sequence) for sequence in sequences])


def _digest(splits: dict[str, Split]) -> str:
    digest = hashlib.sha256()
    for split in splits.values():
        batch = split.batch
        for part in (batch.tokens, batch.audio, batch.vision, batch.labels):
            digest.update(part.numpy().tobytes())
    return digest.hexdigest()
