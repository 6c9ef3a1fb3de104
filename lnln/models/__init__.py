"""The networks: LNLN, the methods that it is compared with, and what they share.

A method is a class (`lnln.models.method.Method`) that names its configuration. Those of
this package stand in `METHODS`; one of your own is named "my_module:MyMethod". Its
class is looked at when it is named, and tried on two utterances before it is trained:
a fault shows in the first second and not after an epoch.
"""

from __future__ import annotations

import copy
import inspect
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lnln.data.batch import Batch
from lnln.data.errors import SettingsError
from lnln.data.files import imported
from lnln.missing.erasing import erase, fixed_rates, split_uniforms
from lnln.models.method import Method, ModelConfig, Step

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
    found = imported(METHODS.get(name, name), "method", METHODS)
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


def is_own(method: str) -> bool:
    """Whether a method is named by its class, "my_module:MyMethod"."""
    return ":" in method


def sources_of(kind: type[Method]) -> list[Path]:
    """The files that a method of one's own is written in, those first that others need.

    Args:
        kind: the class of any method.

    Returns:
        Nothing for the methods of this package, and no files of a package of one's own,
        of which only its maker knows what belongs to it.

    Raises:
        SettingsError: it lies in no file that others could import.
    """
    family = [*kind.config_type.__mro__[::-1], *kind.__mro__[::-1]]
    modules = dict.fromkeys(each.__module__ for each in family)
    if "__main__" in modules:
        raise SettingsError(
            f"{kind.__name__} was written in a notebook or a script, where "
            "nobody else can import it; put the class into a module, and train again"
        )
    alone = [m for m in modules if "." not in m and m not in sys.stdlib_module_names]
    files = (getattr(sys.modules[m], "__file__", None) for m in alone)
    return [Path(file) for file in files if file is not None]


def lacks(kind: type[Method], name: str) -> list[str]:
    """What a class must still get before it can be a method, each with the remedy.

    Args:
        kind: a subclass of `Method`.
        name: "my_module:MyMethod", as it is called.
    """
    found = []
    config: Any = kind.config_type
    derived = isinstance(config, type) and issubclass(config, ModelConfig)
    if config is ModelConfig or not derived:
        found.append(
            "config_type: write a frozen dataclass that derives from ModelConfig, with "
            f'method: ClassVar[str] = "{name}", and name it there'
        )
    else:
        found += _config_lacks(config, name)
    if kind.forward is nn.Module.forward:
        found.append(
            "forward(self, batch): return Prediction(answer, {}), answer being (B,)"
        )
    if kind.losses is Method.losses:
        found.append(
            'losses(self, step): return {"total": ...}, the scalar that is minimised'
        )
    return found


def _config_lacks(config: type[ModelConfig], name: str) -> list[str]:
    found = []
    if (stated := getattr(config, "method", None)) != name:
        told = "no method" if stated is None else f"method = {stated!r}"
        found.append(
            f"{config.__name__} says {told}, by which its runs could not be found "
            f'again; write method: ClassVar[str] = "{name}" there'
        )
    known = {field.name for field in fields(config)}
    plain = [
        field
        for field, kind in inspect.get_annotations(config).items()
        if field not in known and "ClassVar" not in str(kind)
    ]
    if plain:
        found.append(
            f"{config.__name__} is no dataclass, so that {', '.join(plain)} would not "
            "be kept with a run; write @dataclass(frozen=True) above it"
        )
    return found


def refuse_lacking(kind: type[Method], name: str) -> None:
    """Say everything that a class lacks, at once.

    Raises:
        SettingsError: it lacks something.
    """
    if missing := lacks(kind, name):
        raise SettingsError(f"{name} lacks: " + "; ".join(missing))


def try_out(model: Method, complete: Batch) -> None:
    """Take a step with a copy of the model, to see that its answers can be used.

    Args:
        model: of a method of one's own; neither it nor the random state changes.
        complete: utterances, of which two are used.

    Raises:
        SettingsError: its answer or its loss is not what the trainer needs.
    """
    name = model.config.method
    state = torch.get_rng_state()
    try:
        _try_out(copy.deepcopy(model).train(), complete.select(torch.arange(2)), name)
    finally:
        torch.set_rng_state(state)


def _try_out(model: Method, complete: Batch, name: str) -> None:
    model.begin(complete.labels)
    erased = erase(complete, fixed_rates(2, 0.5), split_uniforms(complete, 0))
    answer = getattr(model(erased.batch), "answer", None)
    count = model.config.answer_size
    wanted = (2,) if count == 1 else (2, count)
    if not isinstance(answer, Tensor):
        raise SettingsError(
            f"{name}: what forward returns has no tensor `answer`; return "
            "Prediction(answer, {})"
        )
    if tuple(answer.shape) != wanted:
        raise SettingsError(
            f"{name}: forward answers two utterances in shape {tuple(answer.shape)} "
            f"where {wanted} is needed; {_REMEDY[count > 1]}"
        )
    index = torch.arange(2, device=complete.labels.device)
    losses = model.losses(Step(complete, erased, index, 1, 0, 1, model))
    total = losses.get("total") if isinstance(losses, dict) else None
    if not isinstance(total, Tensor) or total.shape != () or not total.requires_grad:
        raise SettingsError(
            f'{name}: losses must return a dictionary whose "total" is a scalar tensor '
            "that depends on the weights, such as the mean of the errors"
        )


_REMEDY = {
    False: "end with squeeze(-1), not squeeze()",
    True: "drop the last dimension only where it is 1, as squeeze(-1) does",
}
