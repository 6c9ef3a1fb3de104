"""What a model says about a split, and the numbers that metrics take from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lnln.models.blocks.answers import Answer
from lnln.training.scoring.distributions import Floats, best_scores, read_out
from lnln.training.scoring.metrics import evaluate_predictions


@dataclass(frozen=True)
class Predictions(Answer):
    """What a model says about N utterances, on the CPU.

    Attributes:
        answer: (N,) numbers, or (N, K) logits over the label values.
        completeness: (N,) w, NaN for methods that do not estimate it.
    """

    completeness: Tensor

    @property
    def probabilities(self) -> Floats | None:
        """(N, K) probabilities of the label values; None if the answer is a number."""
        if self.answer.dim() == 1:
            return None
        p: Floats = self.answer.double().softmax(dim=-1).numpy()
        return p

    def read(self, metric: str, scheme: str = "mosi") -> Tensor:
        """(N,) the numbers that a metric is reported for; see `read_out`."""
        p = self.probabilities
        if p is None:
            return self.answer
        return torch.from_numpy(read_out(p, metric, scheme)).float()

    def scores(self, labels: Tensor, scheme: str = "mosi") -> dict[str, float]:
        """Every metric of a scheme, each at its own read-out."""
        p = self.probabilities
        if p is None:
            return evaluate_predictions(self.answer, labels, scheme)
        return best_scores(p, labels.double().cpu().numpy().round(4), scheme)
