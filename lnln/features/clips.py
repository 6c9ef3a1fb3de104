"""The table of clips: which files, which stretches of them, labels and words."""

from __future__ import annotations

import codecs
import csv
import difflib
import math
from dataclasses import dataclass
from pathlib import Path

from lnln.data.batch import SPLITS, DataError

_KNOWN = (
    *("clip", "id", "split", "label", "start", "end", "text", "words"),
    *("openface", "table"),
)
_LARGEST_LABEL = 3.0
# Seconds by which an end may lie behind the file's, since people round.
_BEYOND = 0.1


@dataclass(frozen=True)
class Clip:
    """One row of the table: an utterance.

    Attributes:
        path: of the media file.
        id: its name in the file of features.
        split: "train", "valid" or "test".
        label: sentiment in [-3, 3]; None: there is none.
        start, end: the stretch of the file in seconds; None: from its beginning, to
            its end.
        text: what is said; None: unknown, or in `words`.
        words: file of what is said.
        openface: file that OpenFace wrote.
        table: file of other numbers about the picture.
        where: file and row, for messages.
    """

    path: Path
    id: str
    split: str = "test"
    label: float | None = None
    start: float | None = None
    end: float | None = None
    text: str | None = None
    words: Path | None = None
    openface: Path | None = None
    table: Path | None = None
    where: str = ""

    def stretch(self, duration: float) -> tuple[float, float]:
        """Where the clip begins and ends in its file.

        Args:
            duration: of the file; all in seconds.

        Raises:
            DataError: it lies beyond the file.
        """
        start = self.start or 0.0
        end = duration if self.end is None else self.end
        if start >= duration or end > duration + _BEYOND:
            raise DataError(
                f"{self.path}: lasts {duration:.2f} s, but the clip goes from "
                f"{start:g} to {end:g}; write start and end in seconds, within the file"
            )
        return start, min(end, duration)


def read_clips(path: str | Path) -> list[Clip]:
    """Read a table of clips.

    Args:
        path: CSV in UTF-8 with a header. `clip` (path of the media file, relative to
            the table) is required; `id`, `split`, `label`, `start`, `end`, `text` or
            `words`, `openface` and `table` may be there. Names that begin with "_" are
            the user's own.

    Returns:
        The clips, in the order of the rows.

    Raises:
        DataError: a fault in the table, with file, row and remedy.
    """
    path = Path(path)
    header, rows = read_table(path)
    _check_header(path, header)
    clips = [_clip(path, f"{path}, row {number}", row) for number, row in rows]
    if not clips:
        raise DataError(f"{path}: holds no clip; write one row for each")
    _check_ids(clips)
    for split in SPLITS:
        _check_labels(path, [clip for clip in clips if clip.split == split])
    return clips


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a CSV table.

    Args:
        path: of the table.

    Returns:
        The header, and the rows with their line numbers (the header is line 1); all
        values without spaces around, empty lines left out.

    Raises:
        DataError: it is missing, no UTF-8, or a row has more fields than the header.
    """
    lines = read_lines(path)
    reader = csv.reader(lines, skipinitialspace=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        rows = []
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if len(values) > len(header):
                raise DataError(
                    f"{path}, row {reader.line_num}: has {len(values)} fields, the "
                    f"header {len(header)}; put text that holds commas in quotes"
                )
            padded = values + [""] * (len(header) - len(values))
            row = {n: v.strip() for n, v in zip(header, padded, strict=True)}
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise DataError(
            f"{path}, row {reader.line_num}: is no CSV ({error}); save it as "
            "comma-separated values"
        ) from error
    return header, rows


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, or in UTF-16 that begins with its mark.

    Raises:
        DataError: it is missing or neither.
    """
    try:
        content = path.read_bytes()
        marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        name = "UTF-16" if marked else "UTF-8"
        text = content.decode("utf-16" if marked else "utf-8-sig")
        return text.splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not {name} (byte {error.start}); save it as UTF-8 text"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check the name"
        ) from error


def number_in(text: str, where: str, column: str) -> float:
    """A finite number.

    Raises:
        DataError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{where}: {column} {text[:40]!r} is no number; write it as 1.5"
        )
    return value


def _check_header(path: Path, header: list[str]) -> None:
    if "clip" not in header:
        hint = "; separate the columns by commas" if ";" in "".join(header) else ""
        raise DataError(
            f"{path}: has no column 'clip' (found: {', '.join(header)[:80] or 'none'})"
            f"; name the media files there, relative to the table{hint}"
        )
    for name in header:
        if name not in _KNOWN and not name.startswith("_"):
            near = difflib.get_close_matches(name.lower(), _KNOWN, n=1, cutoff=0.5)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise DataError(
                f"{path}: column {name!r} is unknown; {meant}known are "
                f"{', '.join(_KNOWN)}; let names of your own begin with '_'"
            )
        if header.count(name) > 1:
            raise DataError(f"{path}: has two columns {name!r}; remove one")


def _clip(path: Path, where: str, row: dict[str, str]) -> Clip:
    given = {name: value for name, value in row.items() if value}
    if "clip" not in given:
        raise DataError(f"{where}: names no clip; give a media file or remove the row")
    file = path.parent / given["clip"]
    split = given.get("split", "test")
    if split not in SPLITS:
        raise DataError(
            f"{where}: split {split!r} is unknown; write train, valid or test"
        )
    label = start = end = None
    if "label" in given:
        label = number_in(given["label"], where, "label")
        if abs(label) > _LARGEST_LABEL:
            raise DataError(
                f"{where}: label {label:g} lies beyond 3; labels go from -3 to 3 "
                "(divide them by what is too much)"
            )
    if "start" in given:
        start = number_in(given["start"], where, "start")
    if "end" in given:
        end = number_in(given["end"], where, "end")
    if (start or 0.0) < 0 or (end is not None and (start or 0.0) >= end):
        raise DataError(
            f"{where}: start {start or 0:g} and end "
            f"{'none' if end is None else f'{end:g}'} enclose nothing; write seconds, "
            "start before end"
        )
    if "text" in given and "words" in given:
        raise DataError(
            f"{where}: has both text and words; keep one (words may hold times and "
            "confidence)"
        )
    at = f"@{given['start']}" if "start" in given else ""

    def beside(name: str) -> Path | None:
        return path.parent / given[name] if name in given else None

    return Clip(
        path=file,
        id=given.get("id", f"{file.stem}{at}"),
        split=split,
        label=label,
        start=start,
        end=end,
        text=given.get("text"),
        words=beside("words"),
        openface=beside("openface"),
        table=beside("table"),
        where=where,
    )


def _check_ids(clips: list[Clip]) -> None:
    seen: dict[str, Clip] = {}
    for clip in clips:
        if clip.id in seen:
            raise DataError(
                f"{clip.where}: id {clip.id!r} stands in {seen[clip.id].where} too; "
                "give each clip an id of its own in a column id"
            )
        seen[clip.id] = clip


def _check_labels(path: Path, clips: list[Clip]) -> None:
    lacking = [clip for clip in clips if clip.label is None]
    if lacking and len(lacking) < len(clips):
        raise DataError(
            f"{lacking[0].where}: has no label, but {len(clips) - len(lacking)} clips "
            f"of split {clips[0].split!r} have; give all of a split labels, or none"
        )
