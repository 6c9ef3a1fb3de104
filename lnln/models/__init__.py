"""The networks: LNLN, the methods that it is compared with, and what they share.

A method is a class (`lnln.models.method.Method`) that names its configuration. Those of
this package stand in `METHODS`; one of your own is named "my_module:MyMethod".
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from lnln.data.errors import SettingsError
from lnln.models.method import Method, ModelConfig
from lnln.models.own import is_own, refuse_lacking

#: Where each method stands, in the order of the paper's tables; then those since 2024.
METHODS = {
    "misa": "lnln.models.baselines.misa:MISA",
    "self_mm": "lnln.models.baselines.self_mm:SelfMM",
    "mmim": "lnln.models.baselines.mmim:MMIM",
    "cenet": "lnln.models.baselines.cenet:CENET",
    "tetfn": "lnln.models.baselines.tetfn:TETFN",
    "tfr_net": "lnln.models.baselines.tfr_net:TFRNet",
    "almt": "lnln.models.baselines.almt:ALMT",
    "lnln": "lnln.models.lnln:LNLN",
    "p_rmf": "lnln.models.since2024.p_rmf:PRMF",
    "tf_mamba": "lnln.models.since2024.tf_mamba:TFMamba",
}
#: Their names as papers print them.
TITLES = {
    "misa": "MISA",
    "self_mm": "Self-MM",
    "mmim": "MMIM",
    "cenet": "CENET",
    "tetfn": "TETFN",
    "tfr_net": "TFR-Net",
    "almt": "ALMT",
    "lnln": "LNLN",
    "p_rmf": "P-RMF",
    "tf_mamba": "TF-Mamba",
}


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Args:
        name: a key of `METHODS`, or "module:Class" for one of your own.

    Raises:
        SettingsError: there is none, it is no `Method`, or it lacks something.
    """
    place = METHODS.get(name, name)
    module, colon, attribute = place.partition(":")
    if not colon:
        raise SettingsError(
            f"method {name!r} is unknown; choose from {list(METHODS)}, or name a class "
            "of yours as my_module:MyMethod"
        )
    if os.getcwd() not in sys.path:
        # Where a user's own module lies; the installed command does not look there.
        sys.path.append(os.getcwd())
    try:
        found: Any = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"method {name!r} cannot be imported ({error}); start where {module}.py "
            "lies, or install it"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise SettingsError(
            f"{name!r} is no lnln.models.method.Method; derive the class from it"
        )
    if is_own(name):
        refuse_lacking(found, name)
    return found


def title_of(method: str, answer: str = "point") -> str:
    """A method's name as papers print it; of one of your own, its class."""
    told = "" if answer == "point" else f" ({answer})"
    return TITLES.get(method, method.rpartition(":")[2]) + told


def build_model(
    config: ModelConfig,
    architecture: dict[str, Any] | None = None,
    plain: bool = False,
) -> Method:
    """The network of a configuration, with new weights, in its fast form.

    Args:
        config: of any method.
        architecture: see `TextEncoder`; for loading checkpoints.
        plain: leave it in the form as written.
    """
    # Imported late: they import the modules that name this package.
    from lnln.models.blocks.answers import answer_with_distribution
    from lnln.models.fast import fast
    from lnln.models.lnln import LNLNConfig
    from lnln.models.released import network_of

    kind = method_class(config.method)
    if isinstance(config, LNLNConfig):
        kind = network_of(config.variant)
    model = kind(config, architecture)
    if config.answer_size > 1:
        answer_with_distribution(model, model.last, config.answer_size)
    return model if plain else fast(model)
