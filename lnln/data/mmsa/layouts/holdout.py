"""The splits together: one for validation where a file has none, and doubles."""

from __future__ import annotations

import hashlib
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from lnln.data.batch import DataError, Split
from lnln.data.errors import SettingsError
from lnln.data.mmsa.fields import Log


def check_share(share: float) -> None:
    """Raise SettingsError unless `share` is 0 (none) or inside (0, 1)."""
    if not 0 <= share < 1:
        raise SettingsError(
            f"the validation share lies between 0 and 1 (0.1 is usual), not {share:g}"
        )


def check_valid(path: Path, splits: dict[str, Any], share: float) -> None:
    """Raise DataError unless there is one way to a validation split.

    Args:
        path: the file, for messages.
        splits: those that the file has.
        share: see `hold_out`; 0: none is taken.
    """
    there = "valid" in splits
    if there and share:
        raise DataError(
            f"{path}: has a validation split; leave out --valid-share, or remove the "
            "split from the file"
        )
    if not there and not share:
        raise DataError(
            f"{path}: split 'valid' is missing or empty; take it from the training "
            "split with --valid-share 0.1 (read_mmsa(..., valid_share=0.1))"
        )


def hold_out(splits: dict[str, Split], share: float, log: Log) -> dict[str, Split]:
    """Divide the training split into training and validation.

    Whole videos are taken where the ids tell them (`video$_$clip` or `video[clip]`),
    since neighbouring utterances of a speaker are alike. Which ones depends on their
    names only: not on order, machine or seed.

    Args:
        splits: "train" and others, without "valid".
        share: of the training utterances, at least.
        log: gets what was done.

    Returns:
        The splits in the usual order.

    Raises:
        DataError: there are too few utterances to divide.
    """
    train = splits["train"]
    videos = [_video(name) for name in train.ids]
    known = all(video is not None for video in videos) and len(set(videos)) > 1
    groups = [str(v) for v in videos] if known else list(train.ids)
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    if len(members) < 2:
        raise DataError(
            f"--valid-share {share:g}: the training split has {len(train)} utterances "
            "with one id, too few to divide; give the file a validation split"
        )
    wanted = max(1, round(share * len(train)))
    taken: list[int] = []
    used = 0
    for group in sorted(members, key=_shuffled)[:-1]:
        if len(taken) >= wanted:
            break
        taken += members[group]
        used += 1
    chosen = set(taken)
    rest = [i for i in range(len(train)) if i not in chosen]
    unit = f"{used} of {len(members)} videos" if known else "by utterance: ids tell no"
    log.mended.append(
        f"valid: {len(taken)} of {len(train)} training utterances taken for validation "
        f"({unit}{'' if known else ' videos'})."
    )
    return {
        "train": train.select(torch.tensor(rest)),
        "valid": train.select(torch.tensor(sorted(taken))),
        **{name: split for name, split in splits.items() if name != "train"},
    }


def note_doubles(splits: dict[str, Split], log: Log) -> None:
    """Say how many utterances stand in two splits."""
    for one, two in combinations(splits, 2):
        same = set(splits[one].ids) & set(splits[two].ids)
        if same:
            log.notes.append(
                f"{len(same)} ids of {two} also stand in {one}, such as "
                f"{min(same)[:40]!r}: scores may be too good."
            )


def _video(name: str) -> str | None:
    match = re.fullmatch(r"(.+?)(?:\$_\$.*|\[[^\[\]]*\])", name, re.DOTALL)
    return match[1] if match else None


def _shuffled(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
