"""What a class of one's own must have, and what it lacks, with the remedy.

A class is looked at when it is named, and tried on two utterances before it is trained:
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
from lnln.missing.erasing import erase, fixed_rates, split_uniforms
from lnln.models.method import Method, ModelConfig, Step


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
