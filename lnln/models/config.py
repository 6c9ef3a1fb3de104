"""Settings as frozen dataclasses, and the named presets of the paper's Table 1."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

from lnln.data.batch import MODALITIES, Dataset
from lnln.data.errors import SettingsError
from lnln.models.choices import (
    MASKS,
    PARTS,
    RELEASED_CHOICES,
    SCHEDULES,
    SELECTIONS,
    Variant,
)


def require(settings: object, name: str, holds: object, wanted: str) -> None:
    """Refuse a setting that makes no sense.

    Args:
        settings: the dataclass.
        name: of its field.
        holds: whether the value is as wanted.
        wanted: in words, after "must be".

    Raises:
        SettingsError: it is not.
    """
    if not holds:
        value = getattr(settings, name)
        option = name.replace("_", " ")
        raise SettingsError(f"{option} {value!r} is impossible; it must be {wanted}")


@dataclass(frozen=True)
class EncoderConfig:
    """The text encoder: a pretrained BERT-style model, or a small one from scratch.

    Attributes:
        name: hub name or local folder of a pretrained model (`AutoModel`); None
            builds a BERT from the sizes below, untrained and without download.
        frozen: keep the encoder's weights as they are (the paper fine-tunes them).
        vocab_size, width, depth, heads, ffn_width: sizes of the small BERT.
        dropout: dropout of the small BERT (a pretrained one keeps its own).
    """

    name: str | None = None
    frozen: bool = False
    vocab_size: int = 30522
    width: int = 64
    depth: int = 2
    heads: int = 4
    ffn_width: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "depth", "heads", "ffn_width"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "dropout", 0 <= self.dropout < 1, "from 0 to below 1")
        divides = self.width % self.heads == 0
        require(self, "width", divides, f"a multiple of its {self.heads} heads")


@dataclass(frozen=True)
class ModelConfig:
    """What the configurations of all methods share: the sizes of the data.

    Attributes:
        text_length, audio_length, vision_length: longest sequences T_l, T_a, T_v.
        audio_width, vision_width: feature sizes d_a, d_v.
        encoder: the text encoder.
    """

    method: ClassVar[str]
    text_length: int = 50
    audio_length: int = 375
    vision_length: int = 500
    audio_width: int = 5
    vision_width: int = 20
    encoder: EncoderConfig = field(default_factory=EncoderConfig)


@dataclass(frozen=True)
class LNLNConfig(ModelConfig):
    """Sizes of the network (paper, Table 1; released code where it is silent).

    Attributes:
        variant: the paper's network, with some of `RELEASED_CHOICES` as the released
            program has them, and without some of `PARTS`; the text of a `Variant`
            will do, as in "released" and "paper+padding-dmc".
        tokens: learnable tokens T in front of each modality.
        width: model width d.
        heads, head_width: attention heads and their width in every block but the
            hyper-modality layers (released code: 8 x 64, wider than d).
        ffn_width: hidden width of the feed-forward parts.
        embedding_depth, generator_depth, completeness_depth, reconstructor_depth,
            fusion_depth: Transformer layers of each component.
        scales: scales of the dominant feature, hence hyper-modality layers.
        hyper_heads: heads of the hyper-modality layers, of width / hyper_heads.
        dropout: in every layer (released code: 0; the text encoder has its own).
    """

    method: ClassVar[str] = "lnln"
    variant: Variant = Variant()
    tokens: int = 8
    width: int = 128
    heads: int = 8
    head_width: int = 64
    ffn_width: int = 128
    embedding_depth: int = 2
    generator_depth: int = 2
    completeness_depth: int = 2
    reconstructor_depth: int = 2
    fusion_depth: int = 4
    scales: int = 3
    hyper_heads: int = 8
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.variant, str):
            object.__setattr__(self, "variant", Variant.parse(self.variant))
        require(self, "dropout", 0 <= self.dropout < 1, "from 0 to below 1")

    def as_released(self, choice: str) -> bool:
        """Whether one of `RELEASED_CHOICES` is made as in the released program."""
        assert choice in RELEASED_CHOICES
        return choice in self.variant.released

    def lacks(self, part: str) -> bool:
        """Whether one of `PARTS` is left out."""
        assert part in PARTS
        return part in self.variant.without


@dataclass(frozen=True)
class LossWeights:
    """Weights of the four loss terms (paper, overall objective; MOSI values).

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
class TrainConfig:
    """How a model is trained (paper, Table 1, unless said otherwise).

    Attributes:
        epochs, batch_size, learning_rate: as in Table 1.
        weight_decay: of AdamW (released code; no row of Table 1).
        warmup: share of all steps with linearly rising learning rate (Table 1 has a
            tick, the released code the share); a cosine to zero follows.
        schedule: "steps", "released" or "constant", see `SCHEDULES`.
        masks: one of `MASKS`, such as "redrawn".
        clip: largest L2 norm of the gradient (not in the paper; keeps small-data
            runs stable); 0 for none.
        patience: epochs without a better validation score before stopping (Table 1
            has a tick, the number is this book's).
        ema: decay of a moving average of the weights, which is what is then evaluated
            and saved; 0 (the paper) for none. Steadies runs on little data.
        seed: decides initial weights, batches, masks and dropout.
        selection: "validation", "paper" or "released", see `SELECTIONS`.
        validation_rates: missing rates that the validation score is a mean over.
        modalities: the modalities that are available; the others are erased
            entirely in training and evaluation.
        standardize: scale audio and vision columns by training statistics.
        bf16: bfloat16 autocast, and TF32 in what remains (CUDA).
        compile: `torch.compile` the model (CUDA).
    """

    epochs: int = 200
    batch_size: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    warmup: float = 0.1
    schedule: str = "steps"
    masks: str = "redrawn"
    clip: float = 1.0
    patience: int = 20
    ema: float = 0.0
    seed: int = 1111
    selection: str = "validation"
    validation_rates: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7, 0.9)
    modalities: tuple[str, ...] = MODALITIES
    standardize: bool = True
    bf16: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for setting, known in (
            ("selection", SELECTIONS),
            ("schedule", SCHEDULES),
            ("masks", MASKS),
        ):
            if (value := getattr(self, setting)) not in known:
                raise SettingsError(
                    f"{setting} {value!r} is unknown; choose from {sorted(known)}"
                )
        for name in ("epochs", "batch_size", "patience"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "weight_decay", "clip", "seed"):
            value = getattr(self, name)
            require(self, name, 0 <= value < math.inf, "at least 0")
        require(self, "warmup", 0 <= self.warmup <= 1, "from 0 to 1")
        require(self, "ema", 0 <= self.ema < 1, "from 0 to below 1")
        known_ones = set(self.modalities) <= set(MODALITIES) and self.modalities
        require(self, "modalities", known_ones, f"some of {', '.join(MODALITIES)}")
        in_order = tuple(m for m in MODALITIES if m in self.modalities)
        object.__setattr__(self, "modalities", in_order)


def config_type(method: str) -> type[ModelConfig]:
    """The configuration of a method by its name.

    Raises:
        SettingsError: for an unknown method.
    """
    if method == LNLNConfig.method:
        return LNLNConfig
    # Imported late: the methods' modules import this one.
    from lnln.models.baselines import BASELINES

    if method not in BASELINES:
        known = sorted({LNLNConfig.method, *BASELINES})
        raise SettingsError(f"method {method!r} is unknown; choose from {known}")
    return BASELINES[method].config


@dataclass(frozen=True)
class Preset:
    """A named, complete setting: network, loss weights, training."""

    name: str
    model: ModelConfig
    loss: LossWeights
    train: TrainConfig

    @property
    def lnln(self) -> LNLNConfig:
        """The configuration of the network, if the method is LNLN.

        Raises:
            SettingsError: it is another one.
        """
        if not isinstance(self.model, LNLNConfig):
            raise SettingsError(f"this is for LNLN, not for {self.model.method}")
        return self.model

    def fit_to(self, dataset: Dataset) -> Preset:
        """The same preset with the data's own lengths, feature sizes and vocabulary.

        Lengths are those to which the training split is padded, or more where another
        split has longer sequences.
        """
        batch = dataset.train.batch
        batches = [split.batch for split in dataset.splits.values()]
        longest = {m: max(int(b.lengths(m).max()) for b in batches) for m in MODALITIES}
        encoder = self.model.encoder
        if encoder.name is None and int(batch.tokens.max()) >= encoder.vocab_size:
            encoder = replace(encoder, vocab_size=EncoderConfig.vocab_size)
        model = replace(
            self.model,
            encoder=encoder,
            text_length=max(batch.tokens.shape[1], longest["l"]),
            audio_length=max(batch.audio.shape[1], longest["a"]),
            vision_length=max(batch.vision.shape[1], longest["v"]),
            audio_width=batch.audio.shape[2],
            vision_width=batch.vision.shape[2],
        )
        return replace(self, model=model)

    def to_dict(self) -> dict[str, Any]:
        """The preset as plain JSON values."""
        values = {**asdict(self), "method": self.model.method}
        if isinstance(self.model, LNLNConfig):
            values["model"]["variant"] = str(self.model.variant)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preset:
        """The inverse of `to_dict`.

        Raises:
            ValueError: for missing or unknown settings.
        """
        model = dict(values["model"])
        encoder = _build(EncoderConfig, model.pop("encoder"))
        return cls(
            name=values["name"],
            model=_build(
                config_type(values.get("method", "lnln")), {**model, "encoder": encoder}
            ),
            loss=_build(LossWeights, values["loss"]),
            train=_build(TrainConfig, values["train"]),
        )


#: Layers of the released fusion Transformer (item 1), by preset.
RELEASED_FUSION_DEPTH = {"mosi": 2, "mosei": 4, "sims": 4}


def as_released(preset: Preset) -> Preset:
    """The preset with network, training and selection of the released program.

    Args:
        preset: "mosi", "mosei", "sims", or any other, which keeps its fusion depth.
    """
    config = preset.lnln
    depth = RELEASED_FUSION_DEPTH.get(preset.name, config.fusion_depth)
    model = replace(
        config, variant=Variant.parse("released"), fusion_depth=depth, dropout=0.0
    )
    train = replace(
        preset.train,
        schedule="released",
        masks="released",
        selection="released",
        clip=0.0,
        patience=preset.train.epochs,
        ema=0.0,
        standardize=False,
    )
    return replace(preset, model=model, train=train)


def _build(kind: Any, values: dict[str, Any]) -> Any:
    expected = {f.name for f in fields(kind)}
    if set(values) != expected:
        wrong = sorted(set(values) ^ expected)
        raise ValueError(f"{kind.__name__}: missing or unknown settings {wrong}")
    # JSON has no tuples.
    tuples = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
    return kind(**{**values, **tuples})


def _bert(name: str) -> EncoderConfig:
    return EncoderConfig(name=name)


PRESETS = {
    # Simulated corpus, laptop: everything four times narrower than in the paper.
    "mini": Preset(
        "mini",
        LNLNConfig(
            text_length=26,
            audio_length=48,
            vision_length=48,
            width=32,
            heads=2,
            head_width=16,
            ffn_width=64,
            fusion_depth=2,
            hyper_heads=2,
            dropout=0.2,
            encoder=EncoderConfig(
                vocab_size=272, width=32, depth=1, heads=2, ffn_width=64, dropout=0.2
            ),
        ),
        LossWeights(),
        TrainConfig(
            epochs=40, learning_rate=3e-3, weight_decay=1.0, patience=40, ema=0.99
        ),
    ),
    "mosi": Preset(
        "mosi",
        LNLNConfig(encoder=_bert("bert-base-uncased")),
        LossWeights(),
        TrainConfig(),
    ),
    "mosei": Preset(
        "mosei",
        LNLNConfig(
            audio_length=500,
            audio_width=74,
            vision_width=35,
            encoder=_bert("bert-base-uncased"),
        ),
        LossWeights(),
        TrainConfig(),
    ),
    "sims": Preset(
        "sims",
        LNLNConfig(
            text_length=39,
            audio_length=400,
            vision_length=55,
            audio_width=33,
            vision_width=709,
            encoder=_bert("bert-base-chinese"),
        ),
        LossWeights(beta=0.6),
        TrainConfig(),
    ),
}
