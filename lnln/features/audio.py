"""Sound to rows: `plain`, made in torch; `sims` and `egemaps`, made by other packages.

An audio extractor has a `name`, a `version`, `parameters` and `columns`, says which
`sample_rate` it wants and how many rows a second it makes (`rate`), and turns samples
and the mark of missing ones into rows and the mark of those that are there.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lnln.data.errors import MissingPackageError, SettingsError
from lnln.features.gaps import Bools, Floats, pool_frames, touched

#: COVAREP's 74 columns, in order: the sound of the published CMU files.
COVAREP = (
    *("F0", "VUV", "NAQ", "QOQ", "H1H2", "PSP", "MDQ", "peakSlope", "Rd", "Rd_conf"),
    "creak",
    *(f"MCEP_{i}" for i in range(25)),
    *(f"HMPDM_{i}" for i in range(25)),
    *(f"HMPDD_{i}" for i in range(13)),
)
#: The five that MMSA's file of MOSI keeps, as its makers number them, taken from 0.
MOSI_COVAREP = tuple(COVAREP[i] for i in (1, 3, 6, 25, 60))


class AudioExtractor(Protocol):
    """What makes rows of sound.

    Attributes:
        name, version: who made the rows; another version makes other numbers.
        parameters: what else decides the numbers, as plain JSON values.
        columns: names of the d_a columns.
        sample_rate: of the mono sound that it wants, in Hz.
        rate: rows a second.
        packages: what it is made with, for the record.
    """

    name: str
    version: int
    parameters: dict[str, Any]
    columns: tuple[str, ...]
    sample_rate: int
    rate: float
    packages: tuple[str, ...]

    def __call__(self, samples: Floats, missing: Bools) -> tuple[Floats, Bools]:
        """Rows (T, d_a), and (T,) which are there, of (n,) samples and missing ones."""


_FRAME, _HOP, _FFT, _PITCH_FFT = 640, 320, 1024, 2048
_FRAMES_A_SECOND = 50
_SHORTEST_LAG, _LONGEST_LAG = 32, 247  # 500 and 65 Hz
_PEAK_SHARE, _VOICED, _VOICED_RANGE = 0.9, 0.6, 30.0
_SILENT, _LEVEL_FLOOR, _BAND_FLOOR = -90.0, -60.0, -80.0
_BANDS, _LOWEST, _HIGHEST, _CEPSTRA = 40, 50.0, 7600.0, 13


class Plain:
    """Seventeen columns of sound, local in time and indifferent to gain.

    Frames of 40 ms every 20 ms, no padding around. Of each, the mean taken off: pitch
    `f0` in semitones above 55 Hz (normalised square difference; McLeod and Wyvill
    2005), `voicing` (how periodic, 0 if unvoiced), `level` and 13 cepstra `mfcc0..12`,
    both in dB below the clip's own reference, and `zcr`, the share of sign changes.
    Rows are means over the available frames of 1 / rate seconds.

    Args:
        rate: rows a second; divides 50.
    """

    name = "plain"
    version = 1
    packages: tuple[str, ...] = ("torch",)
    sample_rate = 16_000
    columns = ("f0", "voicing", "level", "zcr", *(f"mfcc{i}" for i in range(_CEPSTRA)))

    def __init__(self, rate: float = 12.5) -> None:
        size = _FRAMES_A_SECOND / rate if rate > 0 else 0.0
        if size < 1 or size != int(size):
            raise SettingsError(
                f"rate {rate} is impossible; rows are made of whole frames, 50 a "
                "second, so it must divide 50, such as 12.5, 25 or 10"
            )
        self.rate = rate
        self.parameters: dict[str, Any] = {
            "sample_rate": self.sample_rate,
            "frame": _FRAME,
            "hop": _HOP,
            "frames_a_row": int(size),
        }

    def __call__(self, samples: Floats, missing: Bools) -> tuple[Floats, Bools]:
        """Rows of (n,) samples at 16 kHz, of which `missing` (n,) are not there."""
        values, available = self.frames(samples, missing)
        return pool_frames(values, available, self.parameters["frames_a_row"])

    def frames(self, samples: Floats, missing: Bools) -> tuple[Floats, Bools]:
        """The frames before they are pooled.

        Args:
            samples: (n,) mono sound at 16 kHz in [-1, 1].
            missing: (n,) samples that are not there.

        Returns:
            (F, 17) values of all frames, and (F,) which touch no missing sample.
        """
        n = max(len(samples), _FRAME)
        sound = torch.zeros(n)
        sound[: len(samples)] = torch.from_numpy(np.asarray(samples, np.float32))
        raw = sound.unfold(0, _FRAME, _HOP)  # (F, 640)
        starts = np.arange(len(raw)) * _HOP
        available = ~touched(missing, starts, starts + _FRAME)
        frames = raw - raw.mean(dim=1, keepdim=True)
        level = 20 * frames.square().mean(dim=1).sqrt().clamp_min(1e-5).log10()
        loud = level[torch.from_numpy(available) & (level > _SILENT)].double()
        ref = float(loud.quantile(0.95)) if len(loud) else 0.0
        f0, voicing = _pitch(frames)
        voiced = (voicing >= _VOICED) & (level > max(ref - _VOICED_RANGE, _SILENT))
        values = torch.cat(
            [
                torch.stack(
                    [
                        f0 * voiced,
                        voicing * voiced,
                        (level - ref).clamp_min(_LEVEL_FLOOR),
                        (raw >= 0).diff(dim=1).float().mean(dim=1),
                    ],
                    dim=1,
                ),
                _cepstra(frames, ref),
            ],
            dim=1,
        )
        return values.numpy(), available


def _pitch(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Pitch (F,) in semitones above 55 Hz, and how periodic (F,) the frames are."""
    size = _LONGEST_LAG + 2
    spectrum = torch.fft.rfft(frames, _PITCH_FFT)
    product = torch.fft.irfft(spectrum.abs().square(), _PITCH_FFT)[:, :size]
    energy = torch.nn.functional.pad(frames.square().cumsum(dim=1), (1, 0))
    # Energies of the two parts that overlap at each lag: the first and the last n - k.
    lags = torch.arange(size)
    both = energy[:, _FRAME - lags] + energy[:, -1:] - energy[:, lags]
    alike = 2 * product / both.clamp_min(1e-12)  # (F, lags)
    inner = alike[:, _SHORTEST_LAG : _LONGEST_LAG + 1]
    before = alike[:, _SHORTEST_LAG - 1 : _LONGEST_LAG]
    behind = alike[:, _SHORTEST_LAG + 1 : _LONGEST_LAG + 2]
    peaks = torch.where((inner > before) & (inner >= behind), inner, 0.0)
    highest = peaks.amax(dim=1, keepdim=True)
    first = (peaks >= _PEAK_SHARE * highest).to(torch.uint8).argmax(dim=1)
    a, b, c = (x.gather(1, first[:, None])[:, 0] for x in (before, inner, behind))
    bend = (a - 2 * b + c).clamp_max(-1e-9)
    lag = _SHORTEST_LAG + first + ((a - c) / (2 * bend)).clamp(-1, 1)
    return 12 * (Plain.sample_rate / lag / 55).log2(), b.clamp(0, 1)


def _cepstra(frames: Tensor, ref: float) -> Tensor:
    """Cepstra (F, 13) of the level in 40 bands, in dB below `ref`."""
    window, bands, cosines = _tables()
    power = torch.fft.rfft(frames * window, _FFT).abs().square()
    level = 10 * (power @ bands).clamp_min(1e-12).log10() - ref
    return level.clamp_min(_BAND_FLOOR) @ cosines


@lru_cache(maxsize=1)
def _tables() -> tuple[Tensor, Tensor, Tensor]:
    """Window (640,), bands (513, 40) of equal area, cosines (40, 13)."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (_LOWEST, _HIGHEST))
    mel = torch.linspace(low, high, _BANDS + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bins = torch.arange(_FFT // 2 + 1, dtype=torch.float64) * Plain.sample_rate / _FFT
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    up = (bins[:, None] - left) / (middle - left)
    down = (right - bins[:, None]) / (right - middle)
    bands = torch.minimum(up, down).clamp_min(0) * 2 / (right - left)
    order = torch.arange(_CEPSTRA, dtype=torch.float64)
    place = torch.arange(_BANDS, dtype=torch.float64)[:, None] + 0.5
    cosines = torch.cos(math.pi / _BANDS * place * order) * (2 / _BANDS) ** 0.5
    cosines[:, 0] /= 2**0.5
    window = torch.hann_window(_FRAME, periodic=True, dtype=torch.float64)
    return window.float(), bands.float(), cosines.float()


class Sims:
    """The 33 columns of CH-SIMS, as librosa makes them today: similar, not the same.

    Zero-crossing rate (the paper calls it log F0), 20 cepstra, 12 of chroma, 43.07
    rows a second. Chroma looks half a second around: a fault leaks into rows beside it.
    """

    name = "sims"
    version = 1
    packages: tuple[str, ...] = ("librosa",)
    sample_rate = 22_050
    hop, window = 512, 2048
    rate = sample_rate / hop
    columns = (
        "zcr",
        *(f"mfcc{i}" for i in range(20)),
        *(f"chroma{i}" for i in range(12)),
    )

    def __init__(self) -> None:
        self._librosa = _package("librosa", "--audio sims", "librosa")
        self.parameters: dict[str, Any] = {
            "sample_rate": self.sample_rate,
            "hop": self.hop,
            "window": self.window,
            "mfcc": {"htk": True, "bands": 128},
            "chroma": {"octaves": 7, "lowest_hz": 32.7},
        }

    def __call__(self, samples: Floats, missing: Bools) -> tuple[Floats, Bools]:
        """Rows of (n,) samples at 22,050 Hz, of which `missing` (n,) are not there."""
        centres = np.arange(1 + len(samples) // self.hop) * self.hop
        there = ~touched(
            missing, centres - self.window // 2, centres + self.window // 2
        )
        if not there.any():
            return np.zeros((len(there), len(self.columns)), np.float32), there
        feature = self._librosa.feature
        zcr = feature.zero_crossing_rate(samples, hop_length=self.hop)
        mfcc = feature.mfcc(
            y=samples, sr=self.sample_rate, hop_length=self.hop, htk=True
        )
        chroma = feature.chroma_cqt(y=samples, sr=self.sample_rate, hop_length=self.hop)
        rows = np.concatenate([zcr, mfcc, chroma]).T.astype(np.float32)
        return np.where(there[:, None], rows, 0), there


class Egemaps:
    """The 25 low-level descriptors of eGeMAPSv02 by openSMILE, 100 rows a second."""

    name = "egemaps"
    version = 1
    packages: tuple[str, ...] = ("opensmile",)
    sample_rate = 16_000
    rate = 100.0
    _hop, _window, _shortest = 160, 960, 0.25

    def __init__(self) -> None:
        package = _package("opensmile", "--audio egemaps", "opensmile")
        self._smile = package.Smile(
            feature_set=package.FeatureSet.eGeMAPSv02,
            feature_level=package.FeatureLevel.LowLevelDescriptors,
        )
        self.columns = tuple(self._smile.feature_names)
        self.parameters: dict[str, Any] = {
            "sample_rate": self.sample_rate,
            "feature_set": "eGeMAPSv02",
            "feature_level": "lld",
        }

    def __call__(self, samples: Floats, missing: Bools) -> tuple[Floats, Bools]:
        """Rows of (n,) samples at 16 kHz, of which `missing` (n,) are not there."""
        count = max(1, len(samples) // self._hop - 4)
        starts = np.arange(count) * self._hop
        there = ~touched(missing, starts, starts + self._window)
        rows = np.zeros((count, len(self.columns)), np.float32)
        if there.any():
            made = self._smile.process_signal(samples, self.sample_rate).to_numpy()
            size = min(count, len(made))
            rows[:size] = made[:size]
            there[size:] = False
        return np.where(there[:, None], rows, 0), there


class NoSound:
    """What stands in the place of an audio extractor where sound is left out."""

    name = "none"
    version = 1
    packages: tuple[str, ...] = ()
    sample_rate = Plain.sample_rate
    columns: tuple[str, ...] = ("none",)

    def __init__(self, rate: float = 12.5) -> None:
        self.rate = rate
        self.parameters: dict[str, Any] = {}

    def __call__(self, samples: Floats, missing: Bools) -> tuple[Floats, Bools]:
        """Missing rows over the whole length of (n,) samples."""
        count = max(1, math.ceil(len(samples) / self.sample_rate * self.rate - 1e-6))
        return np.zeros((count, 1), np.float32), np.zeros(count, dtype=bool)


def _package(name: str, wanted_by: str, install: str) -> Any:
    try:
        # Imported late: large, and no part of any extra that it is asked for in.
        return __import__(name)
    except ImportError as error:
        raise MissingPackageError(
            f"{wanted_by} needs the package {name}; install it: pip install {install}"
        ) from error


#: Names of audio extractors, as the command takes them.
AUDIO = ("plain", "sims", "egemaps", "none")


def audio_extractor(name: str, rate: float = 12.5) -> AudioExtractor:
    """An audio extractor by its name.

    Args:
        name: one of `AUDIO`.
        rate: rows a second of `plain`; the others have their own.

    Raises:
        MissingPackageError: its package is not installed.
        SettingsError: the name is unknown, or the rate does not divide 50.
    """
    if name == "plain":
        return Plain(rate)
    if name == "sims":
        return Sims()
    if name == "egemaps":
        return Egemaps()
    if name == "none":
        return NoSound(rate)
    raise SettingsError(f"audio {name!r} is unknown; choose from {', '.join(AUDIO)}")
