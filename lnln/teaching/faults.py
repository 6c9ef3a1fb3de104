"""Faults put into a clip before its features are extracted, as real ones happen.

Erasing zeroes rows after extraction; a camera that is covered and a microphone that
dies change the recording, and whoever extracts features has to find that out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.features.clips import Clip
from lnln.features.gaps import Doubles, Floats
from lnln.features.media import open_media, read_pictures, read_sound

#: Seconds from the clip's beginning: from when, to when.
Stretch = tuple[float, float]
#: At which sound is kept: what the extractor `Plain` wants, so nothing is lost.
RATE = 16_000
#: Of the hiss of a dead microphone, in dBFS: too loud to be taken for muted.
HISS_DBFS = -60.0
#: Of a sheet of paper in front of the camera.
PALE = 200
_TICKS = 1000
_LOST = "[inaudible]"


@dataclass(frozen=True)
class Faults:
    """What goes wrong in a clip, and when; None: nothing of the kind.

    Attributes:
        muted: the sound is exact zeros.
        hiss: the microphone is dead, and its wire hisses.
        covered: something pale is held in front of the camera.
        frozen: the picture stands still.
        unheard: the words are lost.
    """

    muted: Stretch | None = None
    hiss: Stretch | None = None
    covered: Stretch | None = None
    frozen: Stretch | None = None
    unheard: Stretch | None = None


def damage(clip: Clip, faults: Faults, folder: Path, seed: int = 0) -> Clip:
    """Write a copy of a clip with faults in it, without any other loss.

    Args:
        clip: a whole file, with its words as `text`.
        faults: what goes wrong in it.
        folder: where the copy is put, under the clip's id.
        seed: of the hiss.

    Returns:
        The clip, with the path and the words of the copy.
    """
    media = open_media(clip.path)
    sound = pictures = times = None
    if media.sound:
        sound, _ = read_sound(media, RATE)
        spoil_sound(sound, faults, seed)
    if media.picture:
        pieces = list(read_pictures(media))
        pictures = np.concatenate([frames for frames, _ in pieces])
        times = np.concatenate([seconds for _, seconds in pieces])
        spoil_pictures(pictures, times, faults)
    path = folder / f"{clip.id}.mkv"
    _write(path, sound, pictures, times)
    text = clip.text
    if text and faults.unheard:
        text = lose_words(text, faults.unheard, media.duration)
    return replace(clip, path=path, text=text)


def spoil_sound(sound: Floats, faults: Faults, seed: int = 0) -> None:
    """Put the faults of sound into (n,) samples at 16 kHz, in place."""
    if faults.muted:
        sound[_samples(faults.muted)] = 0
    if faults.hiss:
        part = _samples(faults.hiss)
        noise = np.random.default_rng(seed).normal(0, 1, len(sound[part]))
        sound[part] = 10 ** (HISS_DBFS / 20) * noise


def spoil_pictures(pictures: NDArray[np.uint8], times: Doubles, faults: Faults) -> None:
    """Put the faults of the picture into (F, H, W, 3) frames at (F,) s, in place."""
    if faults.covered:
        pictures[inside(times, faults.covered)] = PALE
    if faults.frozen:
        still = np.flatnonzero(inside(times, faults.frozen))
        pictures[still] = pictures[still[:1]]


def inside(times: Doubles, stretch: Stretch) -> NDArray[np.bool_]:
    """Which (F,) times lie in a stretch."""
    start, end = stretch
    result: NDArray[np.bool_] = (times >= start) & (times < end)
    return result


def word_middles(text: str, seconds: float) -> Doubles:
    """When the words of a text are said, if each takes time by its letters.

    Args:
        text: what is said.
        seconds: how long it takes.

    Returns:
        (words,) the middles of the words, in seconds.
    """
    letters = np.array([len(word) + 1 for word in text.split()])
    return (np.cumsum(letters) - letters / 2) / letters.sum() * seconds


def lose_words(text: str, stretch: Stretch, seconds: float) -> str:
    """A text of which the words in a stretch were not understood."""
    gone = inside(word_middles(text, seconds), stretch)
    words = zip(text.split(), gone, strict=True)
    return " ".join(_LOST if lost else word for word, lost in words)


def _samples(stretch: Stretch) -> slice:
    start, end = stretch
    return slice(round(start * RATE), round(end * RATE))


def _write(
    path: Path,
    sound: Floats | None,
    pictures: NDArray[np.uint8] | None,
    times: Doubles | None,
) -> None:
    """Write samples and frames as they are: PCM and FFV1 in Matroska."""
    import av  # of the extra lnln[features]

    with av.open(str(path), "w") as container:
        heard: Any = None
        seen: Any = None
        if sound is not None:
            heard = container.add_stream("pcm_f32le", rate=RATE, layout="mono")
        if pictures is not None:
            seen = container.add_stream("ffv1", rate=Fraction(25, 2))
            seen.height, seen.width = pictures.shape[1:3]
            seen.pix_fmt = "bgra"
            seen.codec_context.time_base = Fraction(1, _TICKS)
            seen.codec_context.thread_count = 1
        if sound is not None:
            part = av.AudioFrame.from_ndarray(sound[None], format="flt", layout="mono")
            part.sample_rate, part.time_base, part.pts = RATE, Fraction(1, RATE), 0
            container.mux([*heard.encode(part), *heard.encode(None)])
        if pictures is not None and times is not None:
            for picture, time in zip(pictures, times, strict=True):
                opaque = np.full_like(picture[..., 0], 255)
                whole = np.dstack([picture[..., ::-1], opaque])
                frame = av.VideoFrame.from_ndarray(whole, format="bgra")
                frame.time_base = Fraction(1, _TICKS)
                frame.pts = round(time * _TICKS)
                container.mux(seen.encode(frame))
            container.mux(seen.encode(None))
