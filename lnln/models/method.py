"""What the one trainer and the one evaluation ask of a method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lnln.data.batch import Batch
from lnln.missing.erasing import Erased
from lnln.models.config import LossWeights, ModelConfig, TrainConfig
from lnln.models.encoder import TextEncoder


@dataclass(frozen=True)
class Item:
    """What a training step is about.

    Attributes:
        complete: B utterances U^0, trimmed.
        erased: what `erase` made of them.
        index: (B,) their places in the training split.
        epoch: counted from 1.
        step: batch of the epoch, counted from 0.
        stage: of the epoch, counted from 1.
        forward: the model's forward pass, compiled if so configured.
        weights: of LNLN's loss terms.
    """

    complete: Batch
    erased: Erased
    index: Tensor
    epoch: int
    step: int
    stage: int
    forward: Callable[..., Any]
    weights: LossWeights = field(default_factory=LossWeights)

    @property
    def labels(self) -> Tensor:
        """(B,) sentiment y."""
        return self.complete.labels


@dataclass(frozen=True)
class Recipe:
    """How the gradients of a method become steps.

    Attributes:
        groups: optimizer groups {"params", "lr", "weight_decay"}; `lr` is the peak.
        coupled: weight decay in the gradient (Adam) and not beside it (AdamW).
        epsilon: of Adam.
        clip_norm: largest L2 norm of all gradients; 0 for none.
        clip_value: largest size of each entry of a gradient; 0 for none.
        accumulate: batches whose gradients are summed before a step; what remains at
            the end of an epoch is thrown away, as in the published programs.
        stages: passes over the data an epoch; each steps its own parameters only, see
            `Method.stage_of`.
        first_share: share of the batches that all stages but the last use.
    """

    groups: list[dict[str, Any]]
    coupled: bool = False
    epsilon: float = 1e-8
    clip_norm: float = 0.0
    clip_value: float = 0.0
    accumulate: int = 1
    stages: int = 1
    first_share: float = 1.0


class Method(nn.Module):
    """A network that predicts sentiment, with what its training needs.

    Subclasses set `config` and `text_encoder`, and define `forward` and `losses`.
    """

    #: Whether the loss is a mean over utterances that neither compares those of a
    #: batch nor remembers any, so that several processes can share a batch.
    shareable: ClassVar[bool] = False

    config: ModelConfig
    text_encoder: TextEncoder

    def trim(self, batch: Batch) -> Batch:
        """Cut padding that the model does not look at."""
        return batch.trim()

    def losses(self, item: Item) -> dict[str, Tensor]:
        """The terms of the loss by name; "total" is what is minimised."""
        raise NotImplementedError

    def recipe(self, train: TrainConfig) -> Recipe:
        """Optimizer, groups and clipping; by default one AdamW group (paper)."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        group = {
            "params": trainable,
            "lr": train.learning_rate,
            "weight_decay": train.weight_decay,
        }
        return Recipe([group], clip_norm=train.clip)

    def stage_of(self, name: str) -> int:
        """Which stage of an epoch trains the parameter of this name."""
        return 1

    def begin(self, labels: Tensor) -> None:
        """Called once before the first epoch, with the training labels (N,)."""

    def after_backward(self, item: Item) -> None:
        """Called after the gradients of each batch."""

    def memory(self) -> dict[str, Tensor]:
        """State of the training that is no weight, for resuming."""
        return {}

    def restore(self, memory: dict[str, Tensor]) -> None:
        """The inverse of `memory`."""

    @torch.no_grad()
    def predict_corruptions(
        self, complete: Batch, corruptions: Sequence[Erased]
    ) -> tuple[Tensor, Tensor]:
        """Predict the same utterances under several corruptions, for evaluation.

        Args:
            complete: B utterances U^0.
            corruptions: C results of `erase` on them.

        Returns:
            (C, B) sentiment and (C, B) completeness, which is NaN for methods that
            do not estimate it.
        """
        sentiment = torch.stack([self(part.batch).sentiment for part in corruptions])
        return sentiment, torch.full_like(sentiment, torch.nan)
