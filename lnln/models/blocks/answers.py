"""What a network answers with: a number, or a distribution over the label values.

The last linear map gives (B,) the sentiment y-hat, or (B, K) logits over the K values
that a label can take. All methods answer either way; only the width of that map and the
task's loss differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from lnln.data.batch import LABEL_VALUES
from lnln.data.errors import SettingsError

_BY_COUNT = {len(values): values for values in LABEL_VALUES.values()}


def label_values(answer: Tensor) -> Tensor:
    """(K,) the values of the labels that (..., K) logits are about."""
    return torch.tensor(
        _BY_COUNT[answer.shape[-1]], dtype=answer.dtype, device=answer.device
    )


def mean_of(answer: Tensor) -> Tensor:
    """(B,) one number for each answer: itself, or the mean of its distribution."""
    if answer.dim() == 1:
        return answer
    return answer.softmax(dim=-1) @ label_values(answer)


@dataclass(frozen=True)
class Answer:
    """What every method says, in a forward pass and of a whole split.

    Attributes:
        answer: (B,) prediction y-hat, or (B, K) logits over the label values.
    """

    answer: Tensor

    @property
    def sentiment(self) -> Tensor:
        """(B,) y-hat; of a distribution its mean."""
        return mean_of(self.answer)


class Answered(Answer):
    """What the forward pass of every method gives."""

    @property
    def probabilities(self) -> Tensor | None:
        """(B, K) probabilities of the label values; None if the answer is a number."""
        return None if self.answer.dim() == 1 else self.answer.softmax(dim=-1)


def shares(labels: Tensor, values: Tensor) -> Tensor:
    """Labels as distributions: one between two values is shared between them.

    Args:
        labels: (B,) sentiment y.
        values: (K,) equally spaced, in rising order.

    Returns:
        (B, K), rows sum to 1 and have the mean y, where y lies among the values.
    """
    step = (values[-1] - values[0]) / (len(values) - 1)
    place = ((labels - values[0]) / step).clamp(0, len(values) - 1)
    # A label that differs from a value by rounding alone belongs to it.
    nearest = place.round()
    place = torch.where((place - nearest).abs() < 1e-4, nearest, place)
    below = place.floor().long()
    above = (below + 1).clamp(max=len(values) - 1)
    rest = (place - below)[:, None]
    of_below, of_above = (one_hot(i, len(values)) for i in (below, above))
    return (1 - rest) * of_below + rest * of_above


def task_loss(
    answer: Tensor, labels: Tensor, of_numbers: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """How wrong an answer is, as a mean over utterances.

    Args:
        answer: (B,) numbers, or (B, K) logits.
        labels: (B,) sentiment y.
        of_numbers: the error of numbers, in a method's own way.

    Returns:
        A scalar; for a distribution its cross-entropy with the labels.
    """
    if answer.dim() == 1:
        return of_numbers(answer, labels)
    return cross_entropy(answer, shares(labels.to(answer.dtype), label_values(answer)))


def answer_with_distribution(model: nn.Module, last: str, count: int) -> None:
    """Let a network give logits: a new last linear map, and nothing else.

    Args:
        model: changed in place.
        last: name of its last linear map, which gives one number.
        count: label values K.

    Raises:
        SettingsError: there is no such map.
    """
    parent, _, name = last.rpartition(".")
    number = dict(model.named_modules()).get(last)
    if not isinstance(number, nn.Linear) or number.out_features != 1:
        raise SettingsError(
            f"{type(model).__name__} has no linear map {last!r} that gives one number; "
            "name its last one in `last`, so that it can answer with a distribution"
        )
    setattr(model.get_submodule(parent), name, nn.Linear(number.in_features, count))
