"""Clips for tests: made of numbers, written through FFmpeg."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 16_000
CODECS = {".wav": "pcm_s16le", ".mp3": "mp3", ".mp4": "aac", ".webm": "libopus"}


def tone(
    hertz: float, seconds: float = 2.0, rate: int = RATE, size: float = 0.3
) -> np.ndarray:
    """A sine, (n,) float32."""
    time = np.arange(round(seconds * rate)) / rate
    return (size * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def speech(seconds: float = 2.26, seed: int = 0) -> np.ndarray:
    """A voice of moving pitch and loudness with noise, (n,) at 16 kHz."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    time = np.arange(n) / RATE
    pitch = (
        150 + 40 * np.sin(2 * np.pi * 1.3 * time) + 10 * np.sin(2 * np.pi * 4 * time)
    )
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 25))
    loud = 0.15 * (0.3 + np.abs(np.sin(2 * np.pi * 2.1 * time)))
    return (loud * voice + rng.normal(0, 0.003, n)).astype(np.float32)


def faces(count: int = 50, size: int = 48) -> np.ndarray:
    """Pictures that differ, (count, size, size, 3) uint8."""
    pictures = np.full((count, size, size, 3), 40, dtype=np.uint8)
    for i, picture in enumerate(pictures):
        picture[4 + i % 40, 8:40] = 200
    return pictures


def write_clip(
    path: Path,
    sound: np.ndarray | None = None,
    rate: int = RATE,
    pictures: np.ndarray | None = None,
    fps: float = 25,
    sound_at: float = 0.0,
    cover: bool = False,
) -> Path:
    """Write (n,) sound, or (channels, n), and (F, H, W, 3) pictures to a file."""
    with av.open(str(path), "w") as container:
        heard: Any = None
        seen: Any = None
        if sound is not None:
            heard = container.add_stream(CODECS[path.suffix], rate=rate)
            heard.layout = "mono" if sound.ndim == 1 else "stereo"
        if pictures is not None:
            codec = "libvpx" if path.suffix == ".webm" else "libx264"
            codec = "mjpeg" if cover else codec
            seen = container.add_stream(
                codec, rate=Fraction(fps).limit_denominator(1000)
            )
            seen.height, seen.width = pictures.shape[1:3]
            seen.pix_fmt = "yuvj420p" if cover else "yuv420p"
            if cover:
                seen.disposition = av.stream.Disposition.attached_pic
            seen.codec_context.thread_count = 1
            if codec == "libx264":
                seen.options = {"preset": "ultrafast"}
        if seen is not None:
            for i, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = i
                container.mux(seen.encode(frame))
            container.mux(seen.encode(None))
        if heard is not None:
            _mux_sound(container, heard, sound, rate, sound_at)
    return path


def _mux_sound(
    container: Any, stream: Any, sound: np.ndarray, rate: int, at: float
) -> None:
    layout = "mono" if sound.ndim == 1 else "stereo"
    samples = np.atleast_2d(sound).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples), format="fltp", layout=layout
    )
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    frame.pts = round(at * rate)
    resampler = av.AudioResampler(
        stream.codec_context.format.name, layout, rate, stream.frame_size or None
    )
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


def write_table(path: Path, *rows: str, header: str = "clip") -> Path:
    """Write a CSV table."""
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path
