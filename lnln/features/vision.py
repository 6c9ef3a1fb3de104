"""Pictures to rows: tables that other programs wrote, or an extractor of frames.

OpenFace's columns are found by their names, since its versions order them otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lnln.data.batch import DataError
from lnln.data.errors import MissingPackageError, SettingsError
from lnln.features.clips import read_table
from lnln.features.gaps import Bools, Doubles, Floats

_INTENSITIES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
_PRESENCES = (*_INTENSITIES[:-1], 28, 45)
#: Columns of OpenFace by group, in the order of its newest versions: 709 in all.
OPENFACE_GROUPS: dict[str, tuple[str, ...]] = {
    "gaze": (
        *(f"gaze_{eye}_{axis}" for eye in (0, 1) for axis in "xyz"),
        *("gaze_angle_x", "gaze_angle_y"),
        *(f"eye_lmk_{axis}_{i}" for axis in "xyXYZ" for i in range(56)),
    ),
    "pose": tuple(f"pose_{kind}{axis}" for kind in "TR" for axis in "xyz"),
    "landmarks": tuple(f"{axis}_{i}" for axis in "xy" for i in range(68)),
    "landmarks-3d": tuple(f"{axis}_{i}" for axis in "XYZ" for i in range(68)),
    "shape": (
        *("p_scale", "p_rx", "p_ry", "p_rz", "p_tx", "p_ty"),
        *(f"p_{i}" for i in range(34)),
    ),
    "au-intensity": tuple(f"AU{i:02d}_r" for i in _INTENSITIES),
    "au-presence": tuple(f"AU{i:02d}_c" for i in _PRESENCES),
}
# What makes OpenFace write a group.
_OPTIONS = {
    "gaze": "-gaze",
    "pose": "-pose",
    "landmarks": "-2Dfp",
    "landmarks-3d": "-3Dfp",
    "shape": "-pdmparams",
    "au-intensity": "-aus",
    "au-presence": "-aus",
}
_AUS = ("au-intensity", "au-presence")
#: Sets of OpenFace's columns, by groups: 35, 41, 177 and 709 columns.
OPENFACE_SETS: dict[str, tuple[str, ...]] = {
    "au": _AUS,
    "pose-au": ("pose", *_AUS),
    "177": ("landmarks", "pose", *_AUS),
    "all": tuple(OPENFACE_GROUPS),
}
# Below this step, in seconds, no camera wrote the times.
_SHORTEST_STEP = 0.005


class VisionExtractor(Protocol):
    """What makes values of pictures.

    Attributes:
        name, version: who made the values; another version makes other numbers.
        parameters: what else decides the numbers, as plain JSON values.
        columns: names of the d_v columns.
    """

    name: str
    version: int
    parameters: dict[str, Any]
    columns: tuple[str, ...]

    def __call__(
        self, frames: NDArray[np.uint8], times: Doubles
    ) -> tuple[Floats, Bools]:
        """Values of pictures.

        Args:
            frames: (F, H, W, 3) uint8 red, green, blue; of a long clip in several
                pieces, one call each.
            times: (F,) seconds from the clip's beginning.

        Returns:
            (F, d_v) values and (F,) bool, False where they are missing, as without a
            face.
        """


@dataclass(frozen=True)
class Track:
    """Values of a picture over time.

    Attributes:
        values: (F, d_v) float32, finite.
        available: (F,) where they are there.
        times: (F,) seconds in the file, rising.
        columns: names of the d_v columns.
    """

    values: Floats
    available: Bools
    times: Doubles
    columns: tuple[str, ...]

    def between(self, start: float, end: float) -> Track:
        """The stretch from `start` to `end`; times then count from `start`."""
        inside = (self.times >= start - 1e-6) & (self.times < end - 1e-6)
        return Track(
            self.values[inside],
            self.available[inside],
            self.times[inside] - start,
            self.columns,
        )


class OpenFace:
    """Columns of the CSV that OpenFace writes for a file with one face.

    Args:
        columns: one of `OPENFACE_SETS`.
        confidence: below this a frame counts as without a face, as it does where
            `success` is 0 or a value is no number.
        pool: frames a row; 0: rows by time.
        fps: of a file that was made from a folder of images; None: by its times.
        program: OpenFace's version, for the record.

    Raises:
        SettingsError: an unknown set of columns, or a number that makes no sense.
    """

    name = "openface"
    version = 1

    def __init__(
        self,
        columns: str = "pose-au",
        confidence: float = 0.7,
        pool: int = 0,
        fps: float | None = None,
        program: str | None = None,
    ) -> None:
        if columns not in OPENFACE_SETS:
            raise SettingsError(
                f"OpenFace columns {columns!r} are unknown; choose from "
                f"{', '.join(OPENFACE_SETS)}"
            )
        if pool < 0:
            raise SettingsError(f"pool {pool} is impossible; frames a row, such as 5")
        if fps is not None and not fps > 0:
            raise SettingsError(f"OpenFace fps {fps} is impossible; such as 30")
        self._groups = OPENFACE_SETS[columns]
        self.columns = tuple(c for g in self._groups for c in OPENFACE_GROUPS[g])
        self.pool, self._fps, self._confidence = pool, fps, confidence
        self.parameters: dict[str, Any] = {
            "columns": columns,
            "confidence": confidence,
            "pool": pool,
            "fps": fps,
            "program": program,
        }

    def read(self, path: Path) -> Track:
        """Read a file.

        Raises:
            DataError: a column is missing, several faces, or impossible times.
        """
        header, rows = read_table(path)
        self._check_header(path, header)
        table = _numbers(header, rows)
        faces = np.unique(table.get("face_id", np.zeros(1)))
        if len(faces) > 1:
            raise DataError(
                f"{path}: holds {len(faces)} faces (face_id {faces[0]:g}, "
                f"{faces[1]:g}, ...); keep the rows of the one who speaks, or let "
                "OpenFace's FeatureExtraction follow one face"
            )
        times = table["timestamp"]
        if self._fps is not None:
            times = (table["frame"] - 1) / self._fps
        _check_times(path, times, "give --openface-fps with the pictures a second")
        values = np.stack([table[name] for name in self.columns], axis=1)
        confident = table["confidence"] >= self._confidence
        return _track(values, (table["success"] == 1) & confident, times, self.columns)

    def _check_header(self, path: Path, header: list[str]) -> None:
        for name in ("frame", "timestamp", "confidence", "success"):
            if name not in header:
                raise DataError(
                    f"{path}: has no column {name!r}; give the CSV file that "
                    "OpenFace's FeatureExtraction writes"
                )
        present = set(header)
        for group in self._groups:
            for name in OPENFACE_GROUPS[group]:
                if name not in present:
                    raise DataError(
                        f"{path}: has no column {name!r}; let OpenFace write it "
                        f"({_OPTIONS[group]}), or ask for others "
                        "(--openface-columns au)"
                    )


class Table:
    """A CSV of anybody's: `time` in seconds, `confidence` perhaps, else numbers.

    Args:
        confidence: below this a row's values count as missing.
    """

    name = "table"
    version = 1
    pool = 0

    def __init__(self, confidence: float = 0.7) -> None:
        self._confidence = confidence
        self.columns: tuple[str, ...] = ()
        self.parameters: dict[str, Any] = {"confidence": confidence}

    def read(self, path: Path) -> Track:
        """Read a file; the first one decides the columns.

        Raises:
            DataError: no time, no or other columns, or impossible times.
        """
        header, rows = read_table(path)
        columns = tuple(n for n in header if n not in ("time", "confidence"))
        if "time" not in header or not columns:
            raise DataError(
                f"{path}: needs a column 'time' in seconds and at least one of numbers "
                f"(found: {', '.join(header)[:80] or 'none'})"
            )
        self.columns = self.columns or columns
        if columns != self.columns:
            raise DataError(
                f"{path}: has the columns {', '.join(columns)[:80]}, the first table "
                f"has {', '.join(self.columns)[:80]}; write the same in every table"
            )
        table = _numbers(header, rows)
        _check_times(path, table["time"], "write the time of each picture in seconds")
        values = np.stack([table[name] for name in columns], axis=1)
        sure = np.ones(len(values), dtype=bool)
        if "confidence" in table:
            sure = table["confidence"] >= self._confidence
        return _track(values, sure, table["time"], columns)


#: What reads a table that another program wrote, or makes values of frames.
Vision = OpenFace | Table | VisionExtractor


class MediaPipe:
    """Blendshapes and pose of one face by MediaPipe's face landmarker.

    Args:
        model: the file face_landmarker.task, which MediaPipe's makers offer.

    Raises:
        MissingPackageError: mediapipe is not installed.
        DataError: the model's file is missing.
    """

    name = "mediapipe"
    version = 1
    packages = ("mediapipe",)
    _POSE = ("pose_Tx", "pose_Ty", "pose_Tz", "pose_Rx", "pose_Ry", "pose_Rz")

    def __init__(self, model: Path) -> None:
        if not model.is_file():
            raise DataError(
                f"{model}: there is no such face model; name MediaPipe's file "
                "face_landmarker.task (--face-model FILE)"
            )
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise MissingPackageError(
                "--vision mediapipe needs the package mediapipe; install it: "
                "pip install mediapipe"
            ) from error
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(model)),
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
            num_faces=1,
        )
        self._image = mediapipe.Image
        self._format = mediapipe.ImageFormat.SRGB
        self._landmarker = vision.FaceLandmarker.create_from_options(options)
        self.parameters: dict[str, Any] = {"model": model.name}
        self.columns = (*(f"blendshape{i}" for i in range(52)), *self._POSE)

    def __call__(
        self, frames: NDArray[np.uint8], times: Doubles
    ) -> tuple[Floats, Bools]:
        """Values (F, 58) of pictures, and (F,) where a face was found."""
        values = np.zeros((len(frames), len(self.columns)), np.float32)
        available = np.zeros(len(frames), dtype=bool)
        for i, frame in enumerate(frames):
            image = self._image(self._format, np.ascontiguousarray(frame))
            found = self._landmarker.detect(image)
            if found.face_blendshapes:
                shapes = [shape.score for shape in found.face_blendshapes[0]]
                matrix = np.asarray(found.facial_transformation_matrixes[0])
                values[i] = [*shapes, *_pose(matrix)]
                available[i] = True
        return values, available


class NoPicture:
    """What stands in the place of a vision extractor where the picture is left out."""

    name = "none"
    version = 1
    columns: tuple[str, ...] = ("none",)

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}

    def __call__(
        self, frames: NDArray[np.uint8], times: Doubles
    ) -> tuple[Floats, Bools]:
        """Nothing, of any pictures."""
        return np.zeros((len(frames), 1), np.float32), np.zeros(len(frames), dtype=bool)


def _pose(matrix: NDArray[Any]) -> list[float]:
    """Translation, and rotation as angles about x, y and z, of a (4, 4) matrix."""
    r = matrix[:3, :3]
    flat = math.hypot(r[0, 0], r[1, 0])
    angles = (
        math.atan2(r[2, 1], r[2, 2]),
        math.atan2(-r[2, 0], flat),
        math.atan2(r[1, 0], r[0, 0]),
    )
    return [*(float(x) for x in matrix[:3, 3]), *angles]


def _numbers(
    header: list[str], rows: list[tuple[int, dict[str, str]]]
) -> dict[str, Doubles]:
    """Columns of numbers; what is none, in whatever spelling, becomes NaN."""

    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return math.nan

    lines = [[number(row[name]) for name in header] for _, row in rows]
    array = np.array(lines, dtype=np.float64).reshape(len(rows), len(header))
    return dict(zip(header, array.T, strict=True))


def _check_times(path: Path, times: Doubles, remedy: str) -> None:
    if not len(times):
        raise DataError(f"{path}: holds no rows; leave the field empty in the table")
    steps = np.diff(times)
    wrong = np.flatnonzero(~(steps > 0))
    if len(wrong) or not np.isfinite(times).all():
        row = int(wrong[0]) + 3 if len(wrong) else 2
        raise DataError(f"{path}, row {row}: the times do not rise; {remedy}")
    if len(steps) and float(np.median(steps)) < _SHORTEST_STEP:
        raise DataError(
            f"{path}: its times are {1000 * float(np.median(steps)):.0f} ms apart: it "
            f"was made from an image folder; {remedy}"
        )


def _track(
    values: Doubles, sure: Bools, times: Doubles, columns: tuple[str, ...]
) -> Track:
    finite: Bools = np.asarray(np.isfinite(values).all(axis=1))
    clean = np.where(finite[:, None], values, 0).astype(np.float32)
    return Track(clean, sure & finite, times, columns)
