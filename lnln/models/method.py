"""What the one trainer and the one evaluation ask of a method."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lnln.data.batch import Batch, joined
from lnln.data.errors import SettingsError
from lnln.missing.erasing import Erased
from lnln.models.blocks.answers import Answered
from lnln.models.blocks.encoder import EncoderConfig, TextEncoder

#: What the released program computes otherwise than the paper describes, by name.
#: Numbers are those of the list in `lnln.models.released`.
RELEASED_CHOICES = {
    "adversary": "2-5: gradient reversed before the mixing; D judges H^1_d of the"
    " corrupted against H^1_l of the complete input, and trains both",
    "reconstruction": "6-8: features H^1_m are reconstructed, from a second pass over"
    " the complete input whose result is not detached",
    "padding": "9: padding is attended to everywhere but in BERT",
    "hyper": "11-13: hyper-modality layers with one query map and one output map, a"
    " stream that is normalised in place, positions added to the first scale",
    "generator": "15: a second learnable block, from which H^1_p is read",
    "start": "14: initial values of positions N(0, 1), tokens 0, H^0_p and H^0_hyper 1",
}
#: What may be left out of LNLN, as in Table 4 of the paper, by name.
PARTS = {
    "dmc": "dominant modality correction: H^1_d is H^1_l, whatever is missing",
    "dmml": "dominant-modality based learning: H^1_d, H^1_a and H^1_v are concatenated",
}


@dataclass(frozen=True)
class Variant:
    """Which LNLN: the paper's, the released program's, or one between or beside them.

    Attributes:
        released: those of `RELEASED_CHOICES` that are made as in the released program.
        without: those of `PARTS` that are left out.
    """

    released: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        unknown = (self.released - RELEASED_CHOICES.keys()) | (
            self.without - PARTS.keys()
        )
        if unknown:
            raise SettingsError(_UNKNOWN.format(", ".join(sorted(unknown))))

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read "paper" or "released", with "+CHOICE" and "-PART" in any order.

        Raises:
            SettingsError: it is something else.
        """
        chosen = frozenset(re.findall(r"\+(\w+)", text))
        left_out = frozenset(re.findall(r"-(\w+)", text))
        known = chosen <= RELEASED_CHOICES.keys() and left_out <= PARTS.keys()
        if not known or not re.fullmatch(r"(paper|released)([+-]\w+)*", text):
            raise SettingsError(_UNKNOWN.format(text))
        if text.startswith("released"):
            chosen = chosen.union(RELEASED_CHOICES)
        return cls(chosen, left_out)

    @property
    def fully_released(self) -> bool:
        """Whether it is exactly the released program's network."""
        return self.released == RELEASED_CHOICES.keys() and not self.without

    def __str__(self) -> str:
        """What `parse` reads, in one order for equal variants."""
        left_out = "".join(f"-{name}" for name in PARTS if name in self.without)
        if self.released == RELEASED_CHOICES.keys():
            return f"released{left_out}"
        chosen = (f"+{name}" for name in RELEASED_CHOICES if name in self.released)
        return f"paper{''.join(chosen)}{left_out}"

    def __format__(self, form: str) -> str:
        return format(str(self), form)


_UNKNOWN = (
    "variant {!r} is unknown; it is 'paper' or 'released', then '+CHOICE' for some of "
    + ", ".join(sorted(RELEASED_CHOICES))
    + " and '-PART' for some of "
    + ", ".join(sorted(PARTS))
)


@dataclass(frozen=True)
class ModelConfig:
    """What the configurations of all methods share: the sizes of the data.

    Attributes:
        text_length, audio_length, vision_length: longest sequences T_l, T_a, T_v.
        audio_width, vision_width: feature sizes d_a, d_v.
        encoder: the text encoder.
        answer_size: 1 for a number; 31 or 21 for a distribution over that many label
            values.
    """

    method: ClassVar[str]
    text_length: int = 50
    audio_length: int = 375
    vision_length: int = 500
    audio_width: int = 5
    vision_width: int = 20
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    answer_size: int = 1


class Reconstruction(NamedTuple):
    """What L_rec compares, for one modality.

    Attributes:
        estimate, target: (B, T_m, d_m), from U^1_m and of U^0_m.
        mask: (B, T_m) bool, True at real positions.
    """

    estimate: Tensor
    target: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Output(Answered):
    """What a forward pass of LNLN gives; (B, T, d) where nothing else is said.

    Attributes:
        answer: (B,) prediction y-hat, or (B, K) logits over the label values.
        completeness: (B,) w.
        embedded: {"l" | "a" | "v": H^1_m}.
        proxy: H^1_p.
        corrected: H^1_d.
        dominants: (H^1_d, H^2_d, H^3_d).
        hyper: H^3_hyper.
        fused: (B, 1 + T, d) output of the fusion Transformer.
        proxy_logits, language_logits: (B, T, 2) of the discriminator on the proxy and
            on language; None before it was asked.
        reconstructions: per modality where a complete batch was given, else empty.
    """

    completeness: Tensor
    embedded: dict[str, Tensor]
    proxy: Tensor
    corrected: Tensor
    dominants: tuple[Tensor, ...]
    hyper: Tensor
    fused: Tensor
    proxy_logits: Tensor | None = None
    language_logits: Tensor | None = None
    reconstructions: dict[str, Reconstruction] = field(default_factory=dict)


class Versions(NamedTuple):
    """A batch as the network sees it, by modality "l", "a", "v"."""

    inputs: dict[str, Tensor]  # U^1_m
    targets: dict[str, Tensor]  # U^0_m, where a complete batch is given
    embedded: dict[str, Tensor]  # H^1_m of U^1_m
    intact: dict[str, Tensor]  # H^1_m of U^0_m, for variants that need it


class Losses(NamedTuple):
    """Each term as a scalar tensor, and their weighted sum."""

    sentiment: Tensor
    completeness: Tensor
    adversarial: Tensor
    reconstruction: Tensor
    total: Tensor


@dataclass(frozen=True)
class Prediction(Answered):
    """What the forward pass of a compared method gives.

    Attributes:
        answer: (B,) prediction y-hat, or (B, K) logits over the label values.
        extras: features and further predictions, by name, for the loss and plots.
    """

    extras: dict[str, Any]


@dataclass(frozen=True)
class LossWeights:
    """Weights of LNLN's four loss terms (paper, overall objective; MOSI values).

    Attributes:
        alpha: completeness check, L_cc.
        beta: adversarial term, L_adv.
        gamma: reconstruction, L_rec; 0 also skips computing it.
        delta: sentiment prediction, L_sp (called sigma in the released code).
    """

    alpha: float = 0.9
    beta: float = 0.8
    gamma: float = 0.1
    delta: float = 1.0


@dataclass(frozen=True)
class Step:
    """What a training step is about.

    Attributes:
        complete: B utterances U^0, trimmed.
        erased: what `erase` made of them.
        index: (B,) their places in the training split.
        epoch: counted from 1.
        number: batch of the epoch, counted from 0.
        stage: of the epoch, counted from 1.
        forward: the model's forward pass, compiled if so configured.
        weights: of LNLN's loss terms.
    """

    complete: Batch
    erased: Erased
    index: Tensor
    epoch: int
    number: int
    stage: int
    forward: Callable[..., Any]
    weights: LossWeights = field(default_factory=LossWeights)

    @property
    def labels(self) -> Tensor:
        """(B,) sentiment y."""
        return self.complete.labels


@dataclass(frozen=True)
class Recipe:
    """How the optimizer updates the weights of a method from their gradients.

    Attributes:
        groups: optimizer groups {"params", "lr", "weight_decay"}; `lr` is the peak.
        coupled: weight decay in the gradient (Adam) and not beside it (AdamW).
        epsilon: of Adam.
        clip_norm: largest L2 norm of all gradients; 0 for none.
        clip_value: largest size of each entry of a gradient; 0 for none.
        accumulate: batches whose gradients are summed before a step; what remains at
            the end of an epoch is thrown away, as in the published programs.
        stages: passes over the data per epoch; each updates its own weights only, see
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


class Optimisation(Protocol):
    """What a method's recipe looks at of the training settings."""

    @property
    def learning_rate(self) -> float:
        """Peak rate."""

    @property
    def weight_decay(self) -> float:
        """Of the parameters that decay."""

    @property
    def clip(self) -> float:
        """Largest L2 norm of the gradient; 0 for none."""


class Method(nn.Module):
    """A network that predicts sentiment, with what its training needs.

    Subclasses define `forward`, whose result has `answer`, and `losses`.

    Args:
        config: sizes and settings of the method.
        architecture: of the text encoder; see `TextEncoder`, for loading checkpoints.
    """

    config_type: ClassVar[type[ModelConfig]] = ModelConfig
    #: Whether the loss is a mean over utterances that neither compares those of a
    #: batch nor remembers any, so that several processes can share a batch.
    shareable: ClassVar[bool] = False

    #: Whether a BERT inside keeps its pooler, which no method reads.
    keeps_pooler: ClassVar[bool] = False

    #: The last linear map, which gives the answer.
    last: ClassVar[str] = "head"

    #: What `lnln tune` searches of the configuration: {field: (low, high, log scale)}.
    tuned: ClassVar[dict[str, tuple[float, float, bool]]] = {}

    config: ModelConfig

    def __init__(
        self, config: ModelConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.text_encoder = TextEncoder(
            config.encoder, config.text_length, architecture, self.keeps_pooler
        )

    def beyond_encoder(self) -> int:
        """Number of parameters outside of the text encoder."""
        inside = sum(p.numel() for p in self.text_encoder.parameters())
        return sum(p.numel() for p in self.parameters()) - inside

    def trim(self, batch: Batch) -> Batch:
        """Cut padding that the model does not look at."""
        return batch.trim()

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The terms of the loss by name; "total" is what is minimised."""
        raise NotImplementedError

    def recipe(self, train: Optimisation) -> Recipe:
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

    def after_backward(self, step: Step) -> None:
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
            (C, B) or (C, B, K) answers, and (C, B) completeness, which is NaN for
            methods that do not estimate it.
        """
        output = self(joined([part.batch for part in corruptions]))
        shape = (len(corruptions), len(complete))
        answers = output.answer.unflatten(0, shape)
        unknown = answers.new_full(shape, torch.nan)
        told = getattr(output, "completeness", unknown)
        return answers, told.reshape(shape)


def split_by_decay(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """A text encoder's weights, and its biases and LayerNorms, which do not decay."""
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            exempt = name.endswith("bias") or "LayerNorm" in name
            (plain if exempt else decayed).append(parameter)
    return decayed, plain
