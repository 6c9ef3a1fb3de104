"""The words of a file that has none, from a table beside it."""

from __future__ import annotations

import csv
from pathlib import Path

from lnln.data.batch import DataError
from lnln.data.mmsa.fields import Field, read_strings


def read_transcripts(path: Path) -> dict[str, str]:
    """Read a CSV table of transcripts.

    Args:
        path: the table, in UTF-8, with a header: id and text; or video_id, clip_id and
            text, as in the label.csv of MOSI, MOSEI and SIMS. More columns are ignored.

    Returns:
        {id: text}; an id of two columns is joined as in the feature files.

    Raises:
        DataError: it cannot be read, lacks a column, or has two texts for an id.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            names = {
                (name or "").strip().lower(): name for name in table.fieldnames or ()
            }
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: the transcripts cannot be read ({error}); give a CSV table in "
            "UTF-8 with the columns id and text"
        ) from error
    columns = ["id"] if "id" in names else ["video_id", "clip_id"]
    if not {*columns, "text"} <= names.keys():
        raise DataError(
            f"{path}: the transcripts have the columns {', '.join(names) or 'none'}; "
            "needed are id and text, or video_id, clip_id and text"
        )
    texts: dict[str, str] = {}
    for row in rows:
        name = "$_$".join((row[names[column]] or "").strip() for column in columns)
        text = (row[names["text"]] or "").strip()
        if texts.setdefault(name, text) != text:
            raise DataError(
                f"{path}: the transcripts have two texts for {name!r}; keep one"
            )
    return texts


def add_transcripts(fields: list[Field], path: str) -> None:
    """Give the splits of a file without words those of a table, by id.

    Args:
        fields: any field of each split; `raw_text` is added to their content.
        path: of the table.

    Raises:
        DataError: the file has words or no ids, or the table lacks some.
    """
    texts = read_transcripts(Path(path))
    for field in fields:
        if field.at("raw_text"):
            raise field.at("raw_text").error(
                "the file has its own words", "leave out --transcripts"
            )
        ids = read_strings(field.at("id"))
        if not ids:
            raise field.at("id").error(
                "the key is missing, so no transcript can be found", "add the ids"
            )
        lacking = [name for name in ids if name not in texts]
        if lacking:
            raise field.at("id").error(
                f"{path} has no text for {len(lacking)} of {len(ids)} utterances, such "
                f"as {lacking[0]!r:.60} (it has, for instance, "
                f"{next(iter(texts), 'nothing')!r:.60})",
                "write the ids of the table like those of the file",
            )
        field.content["raw_text"] = [texts[name] for name in ids]
        field.at("raw_text").mend(f"taken from {Path(path).name} by id")
