"""Self-MM: labels for each modality, made during training from distances.

Yu et al., AAAI 2021. Follows MMSA's program where results rest on it: plain distances,
decay in the gradient, four batches a step. Where it would divide by an empty class, the
last centre is kept, and labels wait until both centres exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from lnln.data.batch import Batch
from lnln.models.blocks.answers import task_loss
from lnln.models.blocks.layers import LastState
from lnln.models.method import (
    Method,
    ModelConfig,
    Optimisation,
    Prediction,
    Recipe,
    Step,
    split_by_decay,
)

TASKS = ("f", "l", "a", "v")  # fused, then each modality
EPSILON = 1e-8


@dataclass(frozen=True)
class SelfMMConfig(ModelConfig):
    """Sizes and settings of Self-MM (values for MOSI); tuples go with `TASKS`.

    Attributes:
        states: widths of the LSTMs of audio and vision.
        outputs: widths behind them.
        heads: widths q of the four heads.
        dropouts: at their inputs.
        rates: learning rates of encoder, audio and vision as shares of the heads'.
        decays: weight decays of encoder, audio and vision.
        limit: clamp H of the generated labels.
        accumulate: batches whose gradients make a step.
    """

    method: ClassVar[str] = "self_mm"
    states: tuple[int, int] = (16, 32)
    outputs: tuple[int, int] = (16, 32)
    heads: tuple[int, int, int, int] = (128, 32, 16, 32)
    dropouts: tuple[float, float, float, float] = (0.0, 0.1, 0.1, 0.0)
    rates: tuple[float, float, float] = (0.05, 5.0, 5.0)
    decays: tuple[float, float, float] = (1e-3, 1e-3, 1e-3)
    limit: float = 3.0
    accumulate: int = 4


class Head(nn.Module):
    """A regression head whose first layer gives the feature F_s."""

    def __init__(self, input_width: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.feature = nn.Linear(input_width, width)
        self.hidden = nn.Linear(width, width)
        self.answer = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, input_width) to the feature (B, width) and the answer (B,)."""
        feature = self.feature(self.dropout(x)).relu()
        return feature, self.answer(self.hidden(feature).relu()).squeeze(-1)


class LabelBank:
    """Generated labels Y_s, features Phi_s of all training utterances, and centres.

    Args:
        labels: (N,) multimodal labels of the training split.
        widths: {task: width of its features}.
        limit: clamp H.
    """

    def __init__(self, labels: Tensor, widths: dict[str, int], limit: float) -> None:
        self.limit = limit
        self.state = {f"labels.{s}": labels.clone() for s in TASKS}
        for s, width in widths.items():
            self.state[f"features.{s}"] = labels.new_zeros(len(labels), width)
            for side in ("positive", "negative"):
                # NaN until there is a row of that sign.
                self.state[f"{side}.{s}"] = labels.new_full((width,), torch.nan)

    def labels(self, task: str, index: Tensor) -> Tensor:
        """(B,) present labels of a task."""
        return self.state[f"labels.{task}"][index]

    def update(self, features: dict[str, Tensor], index: Tensor, epoch: int) -> None:
        """Move the labels (from epoch 2), store the features, compute the centres.

        Args:
            features: {task: (B, width) F_s}.
            index: (B,) places in the training split.
            epoch: counted from 1.
        """
        if epoch >= 2:
            self._move_labels(features, index, epoch)
        for s in TASKS:
            bank, y = self.state[f"features.{s}"], self.state[f"labels.{s}"]
            bank[index] = features[s].detach().to(bank.dtype)
            for side, rows in (("positive", y > 0), ("negative", y < 0)):
                if bool(rows.any()):
                    self.state[f"{side}.{s}"] = bank[rows].mean(dim=0)

    def _move_labels(
        self, features: dict[str, Tensor], index: Tensor, epoch: int
    ) -> None:
        nearer = {}
        for s in TASKS:
            f = features[s].detach()
            plus = (f - self.state[f"positive.{s}"]).norm(dim=1)
            minus = (f - self.state[f"negative.{s}"]).norm(dim=1)
            nearer[s] = (minus - plus) / (plus + EPSILON)
        y = self.labels("f", index)
        for s in TASKS[1:]:
            share = nearer[s] / (nearer["f"] + EPSILON)
            new = 0.5 * share * y + 0.5 * (y + nearer[s] - nearer["f"])
            new = new.clamp(-self.limit, self.limit)
            old = self.labels(s, index)
            moved = (epoch - 1) / (epoch + 1) * old + 2 / (epoch + 1) * new
            self.state[f"labels.{s}"][index] = torch.where(moved.isnan(), old, moved)


class LabelGenerating(Method):
    """A method that is trained with generated labels of each modality.

    Subclasses set `heads` and define `forward`, whose extras hold "features" and
    "answers" by task, and `parts`.
    """

    config: Any
    heads: nn.ModuleDict
    last = "heads.f.answer"

    def __init__(
        self, config: ModelConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__(config, architecture)
        self.bank: LabelBank | None = None
        self._features: dict[str, Tensor] = {}

    def parts(self) -> tuple[list[nn.Module], list[nn.Module], list[nn.Module]]:
        """The modules of audio, of vision, and the others, the encoder left out."""
        raise NotImplementedError

    def add_heads(self, inputs: tuple[int, ...]) -> None:
        """Add the four heads, given the widths of their inputs."""
        sizes = zip(TASKS, inputs, self.config.heads, self.config.dropouts, strict=True)
        self.heads = nn.ModuleDict({s: Head(d, q, p) for s, d, q, p in sizes})

    def answer(self, x: dict[str, Tensor]) -> Prediction:
        """From the input of each head to the prediction."""
        found = {s: self.heads[s](x[s]) for s in TASKS}
        features = {s: feature for s, (feature, _) in found.items()}
        answers = {s: answer for s, (_, answer) in found.items()}
        return Prediction(answers["f"], {"features": features, "answers": answers})

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Weighted absolute errors of the four answers against their labels."""
        assert self.bank is not None, "begin() comes first"
        output = step.forward(step.erased.batch)
        self._features = output.extras["features"]
        fused = self.bank.labels("f", step.index)
        terms = {}
        for s in TASKS:
            y = self.bank.labels(s, step.index)
            answer = output.extras["answers"][s]
            if s == "f":
                terms[s] = task_loss(answer, y, l1_loss)
            else:
                terms[s] = ((y - fused).abs().tanh() * (answer - y).abs()).mean()
        total = sum(terms.values(), torch.zeros_like(terms["f"]))
        named = zip(("sentiment", "language", "audio", "vision"), TASKS, strict=True)
        return {name: terms[s] for name, s in named} | {"total": total}

    def begin(self, labels: Tensor) -> None:
        """Start all labels from the multimodal ones."""
        widths = dict(zip(TASKS, self.config.heads, strict=True))
        self.bank = LabelBank(labels, widths, self.config.limit)

    def after_backward(self, step: Step) -> None:
        """Generate labels from the features of this batch."""
        assert self.bank is not None
        self.bank.update(self._features, step.index, step.epoch)

    def memory(self) -> dict[str, Tensor]:
        """The label bank."""
        return {} if self.bank is None else dict(self.bank.state)

    def restore(self, memory: dict[str, Tensor]) -> None:
        """The inverse of `memory`."""
        assert self.bank is not None
        for name, value in memory.items():
            self.bank.state[name] = value.to(self.bank.state[name].device)

    def recipe(self, train: Optimisation) -> Recipe:
        """Adam with five groups, gradients of several batches summed."""
        c = self.config
        decayed, plain = split_by_decay(self.text_encoder)
        groups = [
            (decayed, c.rates[0], c.decays[0]),
            (plain, c.rates[0], 0.0),
        ]
        shares = ((c.rates[1], c.decays[1]), (c.rates[2], c.decays[2]))
        others = (*shares, (1.0, train.weight_decay))
        for modules, (rate, decay) in zip(self.parts(), others, strict=True):
            own: list[Tensor] = [p for module in modules for p in module.parameters()]
            groups.append((own, rate, decay))
        return Recipe(
            [
                {"params": p, "lr": train.learning_rate * rate, "weight_decay": decay}
                for p, rate, decay in groups
                if p
            ],
            coupled=True,
            accumulate=c.accumulate,
        )


class SelfMM(LabelGenerating):
    """The network.

    Args:
        config: sizes and settings.
        architecture: see `TextEncoder`; for loading checkpoints.
    """

    config: SelfMMConfig
    config_type = SelfMMConfig

    def __init__(
        self, config: SelfMMConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__(config, architecture)
        widths = (config.audio_width, config.vision_width)
        self.audio, self.vision = (
            nn.ModuleDict({"lstm": LastState(d, h), "project": nn.Linear(h, o)})
            for d, h, o in zip(widths, config.states, config.outputs, strict=True)
        )
        text = self.text_encoder.width
        self.add_heads((text + sum(config.outputs), text, *config.outputs))

    def parts(self) -> tuple[list[nn.Module], list[nn.Module], list[nn.Module]]:
        """Audio, vision, heads."""
        return [self.audio], [self.vision], [self.heads]

    def forward(self, batch: Batch) -> Prediction:
        """Predict from (corrupted) utterances."""
        text = self.text_encoder(batch.tokens, batch.token_lengths)[:, 0]
        x = {"l": text}
        for m, part in (("a", self.audio), ("v", self.vision)):
            state = part["lstm"](batch.sequence(m), batch.lengths(m))
            x[m] = part["project"](state)
        x["f"] = torch.cat([x["l"], x["a"], x["v"]], dim=-1)
        return self.answer(x)
