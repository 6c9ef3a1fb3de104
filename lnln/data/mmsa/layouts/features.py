"""What a file says of how its features were made: the top-level dict `features`.

A file made by `lnln features` (or by anybody who follows its form) names the extractor
of each modality. With it, a model can be asked whether it was trained on the same
features, and rows of zeros and [UNK] are known to be gaps of the recording.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from lnln.data.batch import DataError

#: Key of the dict, beside the splits.
FEATURES_KEY = "features"
#: The form of the dict that this version writes and reads.
FORMAT = 1
#: What a fingerprint is made of; versions of libraries stand apart.
IDENTITY = ("extractor", "version", "parameters", "columns", "rate")
#: The files published with MMSA by their SHA-256.
PUBLISHED = dict(
    line.split(maxsplit=1)
    for line in """\
78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524 MOSI unaligned_50.pkl
d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9 MOSI aligned_50.pkl
ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f MOSEI unaligned_50.pkl
45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791 MOSEI aligned_50.pkl
c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f SIMS unaligned_39.pkl
""".splitlines()
)
# A description is read by people: no real one is longer or deeper.
_MOST_VALUES, _DEEPEST = 100_000, 8
_REMEDY = "extract the features again, or remove the key"


def fingerprint(description: dict[str, Any]) -> str:
    """The identity of one modality's features: equal for equally made ones.

    Args:
        description: of a modality, as it stands in the dict `features`.

    Returns:
        SHA-256 of the JSON (keys sorted) of extractor, version, parameters, columns
        and rate, as hexadecimal; what is not given counts as null.
    """
    text = json.dumps(
        {name: description.get(name) for name in IDENTITY},
        sort_keys=True,
        separators=(",", ":"),
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_features(path: Path, content: dict[object, object]) -> dict[str, Any]:
    """Read what a file says of its features.

    Args:
        path: the file, for messages.
        content: what its pickle holds.

    Returns:
        The dict as plain JSON values; empty where there is none (or something else
        of that name).

    Raises:
        DataError: another format, values that are no JSON, or a stated fingerprint
            that is not that of its description.
    """
    value = content.get(FEATURES_KEY)
    if not isinstance(value, dict) or "format" not in value:
        return {}
    where = f"{path}: key {FEATURES_KEY!r}"
    if value["format"] != FORMAT or type(value["format"]) is not int:
        raise DataError(
            f"{where}: has format {value['format']!r:.40}, and not {FORMAT}; use the "
            "version of lnln that made the file"
        )
    left = [_MOST_VALUES]
    features: dict[str, Any] = _plain(where, value, _DEEPEST, left)
    for modality in ("text", "audio", "vision"):
        part = features.setdefault(modality, {})
        if not isinstance(part, dict):
            raise DataError(f"{where}: {modality!r} is no dict; {_REMEDY}")
        stated = part.get("fingerprint")
        if modality != "text" and stated not in (None, fingerprint(part)):
            raise DataError(
                f"{where}: the fingerprint of {modality!r} is not that of its "
                f"description; {_REMEDY}"
            )
    return features


def _plain(where: str, value: object, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if depth < 0 or left[0] < 0:
        raise DataError(f"{where}: is too large or too deep; {_REMEDY}")
    if isinstance(value, dict):
        if not all(type(key) is str for key in value):
            raise DataError(f"{where}: has keys that are no strings; {_REMEDY}")
        return {k: _plain(where, v, depth - 1, left) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(where, item, depth - 1, left) for item in value]
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise DataError(
        f"{where}: holds a {type(value).__name__} that is no value of JSON; {_REMEDY}"
    )


def check_columns(path: Path, features: dict[str, Any], widths: dict[str, int]) -> None:
    """Raise DataError if a modality has other columns than its description names.

    Args:
        path: the file, for messages.
        features: from `read_features`.
        widths: {"audio" | "vision": d_m}.
    """
    for modality, width in widths.items():
        columns = features.get(modality, {}).get("columns")
        if columns and (not isinstance(columns, list) or len(columns) != width):
            count = len(columns) if isinstance(columns, list) else repr(columns)[:40]
            raise DataError(
                f"{path}: key {FEATURES_KEY!r}: names {count} columns of {modality}, "
                f"the rows have {width}; {_REMEDY}"
            )
