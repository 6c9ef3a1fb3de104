"""Are these the features that a model was trained on? What files and columns tell.

Two files of the same width may hold different things, and nothing in the numbers says
so plainly. A file that describes its features settles it; of others it can only be
said that it is not known, and whether the columns look alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lnln.data.batch import Batch, DataError, Dataset, Standardizer
from lnln.data.files import data_dir, sha256_of
from lnln.data.mmsa.layouts.features import IDENTITY, PUBLISHED, fingerprint

#: Clips from which on means and spreads of columns settle.
ENOUGH_CLIPS = 5
#: Largest difference of means, in training scales, and largest ratio of spreads that
#: the same source shows with enough clips, and with fewer.
LIMITS = {True: (1.0, 2.0), False: (3.0, 5.0)}
_MODALITIES = (("audio", "a"), ("vision", "v"))
_KNOWN = {
    "mosi": ("CMU-MOSI, COVAREP", "CMU-MOSI, FACET"),
    "mosei": ("CMU-MOSEI, COVAREP", "CMU-MOSEI, FACET"),
    "sims": ("CH-SIMS, librosa", "CH-SIMS, OpenFace"),
    "simulated": ("the simulated corpus", "the simulated corpus"),
}
_NOBODY = (
    "; a model of the published MOSI or MOSEI features reads nobody's clip, since "
    "FACET is not to be had and the choice of columns cannot be repeated"
)
_REMEDY = (
    "Extract the training clips with the same command and train again, or train on "
    "labelled clips of your own; no conversion exists"
)


def compare(
    run: str, then: dict[str, Any], widths: tuple[int, int], new: Dataset, other: bool
) -> list[str]:
    """Compare what a run was trained on with what it is to read.

    Args:
        run: its name, for messages.
        then: what its record says of its data.
        widths: d_a and d_v of its model.
        new: what it is to read.
        other: go on where features are known to be made otherwise.

    Returns:
        Warnings.

    Raises:
        DataError: other widths, features made otherwise (unless `other`), or another
            vocabulary.
    """
    name = Path(new.source).name
    before = then.get("features", {})
    batch = next(iter(new.splits.values())).batch
    warnings = []
    for place, (modality, letter) in enumerate(_MODALITIES):
        width = batch.sequence(letter).shape[2]
        if width != widths[place]:
            raise DataError(
                f"{run} was trained on {modality} of {widths[place]} columns "
                f"({_kind(then['name'], before, place)}), {name} has {width} "
                f"({_kind(new.name, new.features, place)}). {_REMEDY}"
                + (_NOBODY if then["name"] in ("mosi", "mosei") else "")
            )
        old, now = before.get(modality, {}), new.features.get(modality, {})
        if _told(old) and _told(now):
            warnings += _differences(run, name, modality, old, now, other)
    _check_words(run, name, then, new, batch)
    return warnings + _unknown(run, name, then, new)


def _kind(data: str, features: dict[str, Any], place: int) -> str:
    part = features.get(_MODALITIES[place][0], {})
    if "extractor" in part:
        return f"{part['extractor']} {part.get('version', '')}".strip()
    return _KNOWN[data][place] if data in _KNOWN else data


def _told(part: dict[str, Any]) -> bool:
    return part.get("extractor", "none") != "none"


def _differences(
    run: str,
    name: str,
    modality: str,
    old: dict[str, Any],
    now: dict[str, Any],
    other: bool,
) -> list[str]:
    if fingerprint(old) != fingerprint(now):
        what, a, b = _first_difference(old, now)
        fault = (
            f"{modality} features were made otherwise: {what} is {a!r} in {run} and "
            f"{b!r} in {name}"
        )
        if not other:
            raise DataError(
                f"{fault}. {_REMEDY}; --other-features (other_features=True) goes on"
            )
        return [f"{fault}; what is predicted may mean nothing"]
    warnings = []
    before, after = old.get("libraries", {}), now.get("libraries", {})
    for library in sorted(set(before) & set(after)):
        a, b = str(before[library]), str(after[library])
        if a.split(".")[0] != b.split(".")[0]:
            warnings.append(
                f"{modality} was extracted with {library} {a} for {run} and with {b} "
                f"for {name}; the same settings may give other numbers"
            )
    return warnings


def _first_difference(old: dict[str, Any], now: dict[str, Any]) -> tuple[str, Any, Any]:
    for key in IDENTITY:
        a, b = old.get(key), now.get(key)
        if fingerprint({key: a}) == fingerprint({key: b}):
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            names = sorted(set(a) | set(b))
            inner = next(n for n in names if a.get(n) != b.get(n))
            return f"parameter {inner}", a.get(inner), b.get(inner)
        if isinstance(a, list) and isinstance(b, list):
            longer = max(len(a), len(b))
            a, b = (x + [None] * (longer - len(x)) for x in (a, b))
            i = next(i for i in range(longer) if a[i] != b[i])
            return f"column {i} (from 0)", a[i], b[i]
        return key, a, b
    raise AssertionError("equal fingerprints")


def _check_words(
    run: str, name: str, then: dict[str, Any], new: Dataset, batch: Batch
) -> None:
    special = then.get("special_tokens")
    if special is not None and special != vars(batch.special):
        shown = ", ".join(f"[{k.upper()}] {i}" for k, i in special.items())
        raise DataError(
            f"{name}: token ids have {batch.special}, {run} was trained with {shown}: "
            "ids of another vocabulary mean other words; name the text encoder of the "
            "run (--encoder), or extract the words again with it"
        )
    old = then.get("features", {}).get("text", {}).get("vocab_sha256")
    if then["name"] == "simulated":
        old = sha256_of(data_dir() / "corpus" / "vocab.txt")
    now = new.features.get("text", {}).get("vocab_sha256")
    if old is not None and now is not None and old != now:
        raise DataError(
            f"{name}: its token ids are of another vocabulary (SHA-256 {now}) than "
            f"those of {run} ({old}), so they mean other words; extract the words "
            "again with the text encoder of the run"
        )


def _unknown(run: str, name: str, then: dict[str, Any], new: Dataset) -> list[str]:
    simulated = then["name"] == new.name == "simulated"
    # Clips of one's own hand come from no file.
    if simulated or new.sha256 in ("", then["sha256"]):
        return []
    published = PUBLISHED.get(then["sha256"])
    if published and new.sha256 not in PUBLISHED:
        return [
            f"{run} was trained on the published {published}; {name} has as many "
            f"columns, which are not the same features{_NOBODY}"
        ]
    if then.get("features") and new.features:
        return []
    silent = [
        who
        for who, features in ((run, then.get("features")), (name, new.features))
        if not features
    ]
    verb = "does" if len(silent) == 1 else "do"
    return [
        f"{' and '.join(silent)} {verb} not say how features were made: whether they "
        "are the same cannot be told"
    ]


def shifts(
    batch: Batch, standardizer: Standardizer | None, features: dict[str, Any]
) -> list[str]:
    """Compare the columns of new clips with those of the training split.

    Over the available rows, d = ``abs(mean - training mean)`` / training scale and q =
    standard deviation / training scale. Real speakers differ more than one source from
    itself, hence warnings.

    Args:
        batch: B clips in raw units.
        standardizer: means and scales of the training rows; None: not kept.
        features: the dict that names the columns, or an empty one.

    Returns:
        Warnings; empty where the columns look alike.
    """
    if standardizer is None:
        return [
            "the checkpoint keeps no means and scales of the training columns (it was "
            "trained without --standardize), so nothing can be said of a shift"
        ]
    warnings = []
    for modality, letter in _MODALITIES:
        frames = batch.sequence(letter)
        there = batch.mask(letter) & frames.ne(0).any(dim=-1)
        rows = frames[there].double().cpu()
        # Of one row there is no spread.
        if len(rows) < 2:
            continue
        mean = getattr(standardizer, f"{modality}_mean").double().cpu()
        scale = getattr(standardizer, f"{modality}_scale").double().cpu()
        enough = int(there.any(dim=1).sum()) >= ENOUGH_CLIPS
        names = features.get(modality, {}).get("columns") or []
        found = _shifted(rows, mean, scale, enough, names)
        if found:
            warnings.append(
                f"{modality} looks unlike the training clips, worst: "
                + "; ".join(found)
                + ". Other units, another gain or other features?"
            )
    return warnings


def _shifted(
    rows: Tensor, mean: Tensor, scale: Tensor, enough: bool, names: list[str]
) -> list[str]:
    most_d, most_q = LIMITS[enough]
    d = (rows.mean(dim=0) - mean).abs() / scale
    q = rows.std(dim=0, correction=0) / scale
    ratio = torch.maximum(q, 1 / q.clamp(min=1e-12))
    # A constant column has no scale of its own; `Standardizer.fit` gives it 1.
    varies = scale != 1
    badness = torch.maximum(d / most_d, ratio.log() / torch.tensor(most_q).log())
    badness = torch.where(varies, badness, 0)
    order = badness.argsort(descending=True, stable=True).tolist()
    worst = [i for i in order if badness[i] > 1][:3]
    return [
        f"{names[i] if names else f'column {i} (from 0)'}, mean off by {d[i]:.1f} "
        f"training deviations, spread {q[i]:.2f} times theirs"
        for i in worst
    ]
