"""Clips as samples and frames: decoded by PyAV, each at its time.

Zero is where the clip begins: its `start` in the file, which counts from the file's
earliest stream. Times are those that the file states, not counted frames: phones vary
their rate, and streams begin late and end early.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.data.batch import DataError
from lnln.data.errors import MissingPackageError
from lnln.features.gaps import Bools, Doubles, Floats

#: A piece of pictures: (n, H, W, 3) uint8, and (n,) seconds.
Pictures = tuple[NDArray[np.uint8], Doubles]

# Encoders delay sound by less; a stream that is later is one that is missing.
_DELAY = 0.05
# Enough in front of a stretch for a decoder to be right when the stretch begins.
_PREROLL = 0.5
# Formats in which one can jump to a time exactly; others are read from the front.
_EXACT = ("mov", "matroska", "wav", "avi")
# Bytes of pictures that are handed over at once.
_PIECE = 128 * 2**20


@dataclass(frozen=True)
class Media:
    """What a media file holds, as far as its container tells.

    Attributes:
        path: the file.
        sound, picture: whether it has such a stream.
        zero: seconds at which its earliest stream begins.
        duration: seconds from there to the end of its last stream.
        sound_span, picture_span: seconds from zero at which the stream begins and
            ends; the end None where only decoding tells.
        seeks: whether one can jump to a time in it.
    """

    path: Path
    sound: bool
    picture: bool
    zero: float
    duration: float
    sound_span: tuple[float, float | None]
    picture_span: tuple[float, float | None]
    seeks: bool


def open_media(path: Path) -> Media:
    """Look into a media file.

    Args:
        path: wav, mp3, mp4, webm or what else FFmpeg decodes.

    Raises:
        DataError: there is no such file, or no sound and picture that can be decoded.
        MissingPackageError: PyAV is not installed.
    """
    with _opened(path) as container:
        sound, picture = _streams(container)
        if sound is None and picture is None:
            raise _undecodable(path, "holds neither sound nor picture")
        starts, ends = {}, {}
        for kind, stream in (("sound", sound), ("picture", picture)):
            if stream is None:
                continue
            base = float(stream.time_base)
            starts[kind] = (stream.start_time or 0) * base
            ends[kind] = (
                starts[kind] + stream.duration * base if stream.duration else None
            )
        if None in ends.values():
            ends = _counted(container, path, starts, ends)
        zero = min(starts.values())
        duration = max(end for end in ends.values() if end is not None) - zero
    if not duration > 0:
        raise _undecodable(path, "has duration 0")

    def span(kind: str) -> tuple[float, float | None]:
        if kind not in starts:
            return 0.0, 0.0
        end = ends[kind]
        return starts[kind] - zero, None if end is None else end - zero

    return Media(
        path,
        sound is not None,
        picture is not None,
        zero,
        duration,
        span("sound"),
        span("picture"),
        container.format.name.startswith(_EXACT),
    )


def read_sound(
    media: Media, rate: int, start: float = 0.0, end: float | None = None
) -> tuple[Floats, Bools]:
    """Decode a stretch of sound.

    Args:
        media: the file.
        rate: samples a second that are wanted.
        start, end: seconds from the file's zero; None: to its end.

    Returns:
        (n,) mono sound in [-1, 1], zero where the container holds none, and (n,) where
        it holds none. Channels are averaged.

    Raises:
        DataError: it cannot be decoded.
    """
    end = media.duration if end is None else end
    n = max(1, round((end - start) * rate))
    samples, held = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=bool)
    # AAC decodes up to 43 ms more than went in: the stream says how long it is.
    last = min(n, round(((media.sound_span[1] or end) - start) * rate))
    for time, piece in _pieces(media, rate, start, end) if media.sound else ():
        first = round((time - start) * rate)
        piece = piece[max(0, -first) : max(0, last - first)]
        first = max(0, first)
        samples[first : first + len(piece)] = piece
        held[first : first + len(piece)] = True
    missing = ~held
    _forgive(missing, round(_DELAY * rate))
    return samples, missing


def read_pictures(
    media: Media, start: float = 0.0, end: float | None = None
) -> Iterator[Pictures]:
    """Decode a stretch of pictures, turned as they were meant to be seen.

    Args:
        media: the file.
        start, end: seconds from the file's zero; None: to its end.

    Yields:
        Pieces of at most 128 MiB: (n, H, W, 3) uint8 red, green, blue, and (n,)
        seconds from `start`. A short clip comes as one piece.

    Raises:
        DataError: they cannot be decoded.
    """
    if not media.picture:
        return
    end = media.duration if end is None else end
    frames: list[NDArray[np.uint8]] = []
    times: list[float] = []
    with _opened(media.path) as container:
        from av.video.reformatter import VideoReformatter

        colours = VideoReformatter()
        _, stream = _streams(container)
        _jump(container, media, start)
        for frame in _decoded(container, stream, media.path):
            if frame.time is None:
                continue
            time = frame.time - media.zero - start
            if time < -1e-6:
                continue
            if time >= end - start - 1e-6:
                break
            # More threads than one only wait for each other at such sizes.
            plain = colours.reformat(frame, format="rgb24", threads=1).to_ndarray()
            image = np.rot90(plain.astype(np.uint8), round(frame.rotation / 90))
            full = frames and len(frames) * frames[0].nbytes >= _PIECE
            if full or (frames and frames[0].shape != image.shape):
                yield np.stack(frames), np.array(times)
                frames, times = [], []
            frames.append(image)
            times.append(max(time, 0.0))
    if frames:
        yield np.stack(frames), np.array(times)


def _pieces(
    media: Media, rate: int, start: float, end: float
) -> Iterator[tuple[float, Floats]]:
    """Stretches of unbroken sound from about `start` to `end`: times, samples."""
    import av

    with _opened(media.path) as container:
        stream, _ = _streams(container)
        _jump(container, media, start)
        resampler: Any = None
        began = told = 0.0
        made: list[Floats] = []
        for frame in _decoded(container, stream, media.path):
            time = (told if frame.time is None else frame.time) - media.zero
            if resampler is not None and abs(time - told) > _DELAY:
                made += [_mono(part) for part in resampler.resample(None)]
                yield began, np.concatenate(made)
                resampler = None
            if time >= end:
                break
            if resampler is None:
                # Beyond two channels libswresample knows which is which.
                layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
                resampler = av.AudioResampler("fltp", layout, rate)
                began, told, made = time, time, []
            told += frame.samples / frame.sample_rate
            frame.pts = None
            made += [_mono(part) for part in resampler.resample(frame)]
        if resampler is not None:
            made += [_mono(part) for part in resampler.resample(None)]
            if made:
                yield began, np.concatenate(made)


def _mono(frame: Any) -> Floats:
    mean: Floats = frame.to_ndarray().mean(axis=0, dtype=np.float32)
    return mean


def _forgive(missing: Bools, most: int) -> None:
    """Take a short absence at the ends for a codec's delay, in place."""
    if missing.all():
        return
    first = int(np.argmin(missing))
    last = int(np.argmin(missing[::-1]))
    if first <= most:
        missing[:first] = False
    if last <= most:
        missing[len(missing) - last :] = False


def _jump(container: Any, media: Media, start: float) -> None:
    if media.seeks and start > _PREROLL:
        time = start + media.zero - _PREROLL
        container.seek(int(time * 1_000_000), backward=True)


def _counted(
    container: Any,
    path: Path,
    starts: dict[str, float],
    ends: dict[str, float | None],
) -> dict[str, float | None]:
    """The ends of streams that state none: of the picture by its packets.

    Of sound by decoding it, since packets hold what decoders then cut.
    """
    sound, picture = _streams(container)
    ends = dict(ends)
    with _opened(path) as again:
        if picture is not None and ends["picture"] is None:
            _, stream = _streams(again)
            spans = [
                (p.pts * float(p.time_base), (p.duration or 0) * float(p.time_base))
                for p in again.demux(stream)
                if p.pts is not None
            ]
            if spans:
                last, shown = max(spans)
                usual = (last - starts["picture"]) / max(1, len(spans) - 1)
                ends["picture"] = last + (shown or usual)
    if sound is not None and ends["sound"] is None:
        told = starts["sound"]
        for frame in _decoded(container, sound, path):
            # Containers round times, so where nothing breaks off samples are counted.
            if frame.time is not None and abs(frame.time - told) > _DELAY:
                told = frame.time
            told += frame.samples / frame.sample_rate
        ends["sound"] = told
    return {kind: starts[kind] if e is None else e for kind, e in ends.items()}


def _streams(container: Any) -> tuple[Any, Any]:
    """The first streams of sound and of picture that can be decoded, or None."""
    sound = next(iter(container.streams.audio), None)
    # A cover picture inside of a song is no video.
    moving = (s for s in container.streams.video if not _is_cover(s))
    return sound, next(moving, None)


def _is_cover(stream: Any) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _opened(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingPackageError(
            "features of clips need the package av; install it: "
            "pip install 'lnln[features]'"
        ) from error
    try:
        return av.open(str(path))
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: there is no such file; paths in the table are relative to it"
        ) from error
    except (OSError, ValueError) as error:
        raise _undecodable(path, f"cannot be opened ({_reason(error)})") from error


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    try:
        yield from container.decode(stream)
    except (OSError, ValueError) as error:
        raise _undecodable(path, f"cannot be decoded ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)[:120]


def _undecodable(path: Path, why: str) -> DataError:
    return DataError(
        f"{path}: {why}; play the file to see whether it is whole, and save it anew as "
        "mp4, webm, wav or mp3"
    )
