"""The methods that LNLN is compared with, one module each."""

from __future__ import annotations

from dataclasses import dataclass

from lnln.models.baselines.almt import ALMT, ALMT_PRESETS, ALMTConfig
from lnln.models.baselines.cenet import CENET, CENET_PRESETS, CENETConfig
from lnln.models.baselines.common import Setting
from lnln.models.baselines.misa import MISA, MISA_PRESETS, MISAConfig
from lnln.models.baselines.mmim import MMIM, MMIM_PRESETS, MMIMConfig
from lnln.models.baselines.self_mm import SELF_MM_PRESETS, SelfMM, SelfMMConfig
from lnln.models.baselines.tetfn import TETFN, TETFN_PRESETS, TETFNConfig
from lnln.models.baselines.tfr_net import TFR_NET_PRESETS, TFRNet, TFRNetConfig
from lnln.models.config import ModelConfig
from lnln.models.method import Method


@dataclass(frozen=True)
class Baseline:
    """A method by its parts.

    Attributes:
        title: as papers print it.
        config, module: its configuration and its network.
        presets: {"mini" | "mosi" | "mosei" | "sims": its settings}.
    """

    title: str
    config: type[ModelConfig]
    module: type[Method]
    presets: dict[str, Setting]


#: By name, in the order of the paper's tables.
BASELINES = {
    "misa": Baseline("MISA", MISAConfig, MISA, MISA_PRESETS),
    "self_mm": Baseline("Self-MM", SelfMMConfig, SelfMM, SELF_MM_PRESETS),
    "mmim": Baseline("MMIM", MMIMConfig, MMIM, MMIM_PRESETS),
    "cenet": Baseline("CENET", CENETConfig, CENET, CENET_PRESETS),
    "tetfn": Baseline("TETFN", TETFNConfig, TETFN, TETFN_PRESETS),
    "tfr_net": Baseline("TFR-Net", TFRNetConfig, TFRNet, TFR_NET_PRESETS),
    "almt": Baseline("ALMT", ALMTConfig, ALMT, ALMT_PRESETS),
}
