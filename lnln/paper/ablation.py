"""The paper's ablations (Tables 4 to 7) as settings, under their printed names."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from lnln.data.errors import SettingsError
from lnln.models.method import LossWeights
from lnln.paper.printed import printed
from lnln.training.settings import Preset, with_train

FULL = "full model"
Change = Callable[[Preset], Preset]


def weigh(preset: Preset, **weights: float) -> Preset:
    """The preset with other weights of its loss terms."""
    return replace(preset, loss=replace(preset.loss, **weights))


def without(preset: Preset, *parts: str) -> Preset:
    """LNLN without some of `lnln.models.method.PARTS`.

    Without the correction its two losses have nothing to train either.
    """
    variant = preset.lnln.variant
    variant = replace(variant, without=variant.without.union(parts))
    preset = replace(preset, model=replace(preset.lnln, variant=variant))
    return weigh(preset, alpha=0.0, beta=0.0) if "dmc" in parts else preset


def only(preset: Preset, modalities: str) -> Preset:
    """The preset for data in which the other modalities are missing throughout."""
    return with_train(preset, modalities=tuple(modalities))


#: {table: {setting as printed: what it changes}}; Table 7 is read from the paper's.
_CHANGES: dict[int, dict[str, Change]] = {
    4: {
        "w/o DMC": lambda p: without(p, "dmc"),
        "w/o Reconstructor": lambda p: weigh(p, gamma=0.0),
        "w/o DMC & Reconstructor": lambda p: weigh(without(p, "dmc"), gamma=0.0),
        "w/o DMML": lambda p: without(p, "dmml"),
        "w/o Missing Data for Training": lambda p: with_train(p, masks="none"),
    },
    5: {
        "w/o L_cc": lambda p: weigh(p, alpha=0.0),
        "w/o L_adv": lambda p: weigh(p, beta=0.0),
        "w/o L_rec": lambda p: weigh(p, gamma=0.0),
    },
    6: {
        "w/o language": lambda p: only(p, "av"),
        "w/o audio": lambda p: only(p, "lv"),
        "w/o vision": lambda p: only(p, "la"),
    },
}


def ablations(table: int, preset: Preset, dataset: str = "MOSI") -> dict[str, Preset]:
    """The settings of one of the paper's ablation tables.

    Args:
        table: 4 (components), 5 (losses), 6 (modalities) or 7 (loss weights).
        preset: LNLN as it is ablated from.
        dataset: Table 7 has other weights for "SIMS" than for "MOSI".

    Returns:
        {setting as printed in the paper: preset}, the full model first. Settings that
        are the same experiment (the reconstructor feeds nothing but its loss) are
        equal presets.

    Raises:
        SettingsError: another table, or a preset of another method.
    """
    if table == 7:
        return {name: replace(preset, loss=w) for name, w in _weights(dataset).items()}
    if table not in _CHANGES:
        raise SettingsError(
            f"table {table} holds no ablation; choose from 4, 5, 6 and 7"
        )
    changed = {name: change(preset) for name, change in _CHANGES[table].items()}
    return {FULL: preset, **changed}


def _weights(dataset: str) -> dict[str, LossWeights]:
    """{setting: weights} of Table 7, the default first."""
    weights = {}
    for setting in printed(7, dataset)["setting"].unique():
        pairs = re.findall(r"(\w+)=([0-9.]+)", setting)
        weights[setting] = LossWeights(**{name: float(value) for name, value in pairs})
    return weights


def folder_name(preset: Preset, base: Preset) -> str:
    """A name for runs of a changed preset: the same for the same experiment.

    Args:
        preset: of LNLN.
        base: what it was changed from.

    Returns:
        As in "lnln", "lnln_gamma0" or "lnln_paper-dmc_alpha0_beta0".
    """
    parts = ["lnln"]
    if preset.lnln.variant != base.lnln.variant:
        parts.append(str(preset.lnln.variant))
    for field, weight in vars(preset.loss).items():
        if weight != getattr(base.loss, field):
            parts.append(f"{field}{weight:g}")
    for field in ("masks", "selection", "modalities"):
        value = getattr(preset.train, field)
        if value != getattr(base.train, field):
            parts.append(f"{field}_{''.join(value)}")
    return "_".join(parts)
