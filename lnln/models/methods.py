"""All methods by name: LNLN and those it is compared with."""

from __future__ import annotations

from typing import Any

from lnln.data.errors import SettingsError
from lnln.models.baselines import BASELINES
from lnln.models.baselines.common import preset_of
from lnln.models.config import PRESETS, LNLNConfig, ModelConfig, Preset
from lnln.models.method import Method
from lnln.models.model import LNLN

#: {name: title as papers print it}, in the order of the paper's tables.
TITLES = {**{name: part.title for name, part in BASELINES.items()}, "lnln": "LNLN"}


def build_model(
    config: ModelConfig, architecture: dict[str, Any] | None = None
) -> Method:
    """The network of a configuration, with new weights.

    Args:
        config: of any method.
        architecture: see `TextEncoder`; for loading checkpoints.
    """
    if isinstance(config, LNLNConfig):
        return LNLN(config, architecture)
    module: Any = BASELINES[config.method].module
    built: Method = module(config, architecture)
    return built


def preset_for(method: str, name: str) -> Preset:
    """The settings of a method for a data set.

    Args:
        method: a key of `TITLES`.
        name: "mini", "mosi", "mosei" or "sims".

    Raises:
        SettingsError: an unknown method.
    """
    if method == LNLNConfig.method:
        return PRESETS[name]
    if method not in BASELINES:
        raise SettingsError(f"method {method!r} is unknown; choose from {list(TITLES)}")
    return preset_of(name, BASELINES[method].presets[name])
