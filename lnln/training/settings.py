"""Settings of a training as frozen dataclasses, and the named choices in them."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

from lnln.data.batch import LABEL_VALUES, MODALITIES, Dataset
from lnln.data.errors import SettingsError, require
from lnln.models import method_class
from lnln.models.blocks.encoder import EncoderConfig
from lnln.models.lnln import LNLNConfig
from lnln.models.method import LossWeights, ModelConfig

#: How the reported epoch is chosen, and what every output says about it.
SELECTIONS = {
    "validation": "best epoch by validation MAE, mean over the validation rates",
    "paper": "peak epoch per metric on the TEST split at r = 0.5 (the rule behind the"
    " paper's numbers, known from the released program; optimistic, since the test"
    " labels choose the epoch)",
    "released": "as 'paper', on the released masks, always all epochs; epoch 1 counts"
    " as a best so far without being saved",
}
#: How training corrupts, and how the learning rate runs.
MASKS = {
    "redrawn": "new rates and new masks in every epoch",
    "released": "rates and masks drawn once and kept for all epochs",
    "realised": "as redrawn; the completeness to learn is the share of words that is"
    " left, not 1 - r (the paper)",
    "none": "no data are missing in training (Table 4)",
    "mixed": "as redrawn; in half of the utterances words are replaced by others, too,"
    " and the completeness to learn is the share that is neither erased nor replaced",
}
SCHEDULES = {
    "steps": "per step: linear warm-up, then a cosine to zero",
    "released": "per epoch, from learning rate 0 in epoch 1",
    "constant": "the peak throughout, as most compared methods have it",
}
ANSWERS = {
    "point": "one number, trained with the method's own error (the papers)",
    "distribution": "probabilities of all values a label can take, trained with"
    " cross-entropy; each metric reads off the number that serves it best",
}
#: The settings whose values have names.
CHOICES = {
    "answer": ANSWERS,
    "selection": SELECTIONS,
    "schedule": SCHEDULES,
    "masks": MASKS,
}


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained (paper, Table 1, unless said otherwise).

    Attributes:
        epochs: passes over the training split, at most.
        batch_size: utterances a step.
        learning_rate: its peak.
        encoder_rate: the text encoder's learning rate as a share of what the method
            gives it.
        weight_decay: of AdamW (released code; the paper gives none).
        warmup: share of all steps with linearly rising learning rate (the paper
            says that there is one, the released code which); a cosine to zero follows.
        schedule: how the learning rate runs, see `SCHEDULES`.
        masks: how training corrupts, see `MASKS`.
        clip: largest L2 norm of the gradient (not in the paper; keeps small-data
            runs stable); 0 for none.
        patience: epochs without a better validation score before stopping (the
            paper says that there is a limit, the number is this book's).
        ema: decay of a moving average of the weights, which is what is then evaluated
            and saved; 0 (the paper) for none. Steadies runs on little data.
        seed: decides initial weights, batches, masks and dropout.
        answer: what the model answers with, see `ANSWERS`.
        selection: how the reported epoch is chosen, see `SELECTIONS`.
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
    encoder_rate: float = 1.0
    weight_decay: float = 1e-4
    warmup: float = 0.1
    schedule: str = "steps"
    masks: str = "redrawn"
    clip: float = 1.0
    patience: int = 20
    ema: float = 0.0
    seed: int = 1111
    answer: str = "point"
    selection: str = "validation"
    validation_rates: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7, 0.9)
    modalities: tuple[str, ...] = MODALITIES
    standardize: bool = True
    bf16: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for setting, known in CHOICES.items():
            if (value := getattr(self, setting)) not in known:
                raise SettingsError(
                    f"{setting} {value!r} is unknown; choose from {sorted(known)}"
                )
        for name in ("epochs", "batch_size", "patience"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "encoder_rate", "weight_decay", "clip", "seed"):
            value = getattr(self, name)
            require(self, name, 0 <= value < math.inf, "at least 0")
        require(self, "warmup", 0 <= self.warmup <= 1, "from 0 to 1")
        require(self, "ema", 0 <= self.ema < 1, "from 0 to below 1")
        known_ones = set(self.modalities) <= set(MODALITIES) and self.modalities
        require(self, "modalities", known_ones, f"some of {', '.join(MODALITIES)}")
        in_order = tuple(m for m in MODALITIES if m in self.modalities)
        object.__setattr__(self, "modalities", in_order)

    def answer_size(self, scheme: str) -> int:
        """How many numbers an answer about labels of a scheme consists of."""
        return 1 if self.answer == "point" else len(LABEL_VALUES[scheme])


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The rate of a step, by the schedule of the settings.

    Args:
        step: optimizer step, counted from 0.
        steps: steps of the whole run, a multiple of the epochs.
        config: peak rate, warm-up share, epochs and schedule.

    Returns:
        The learning rate of this step.
    """
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "released":
        epoch = step // (steps // config.epochs) + 1
        return _released_learning_rate(epoch, config)
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def _released_learning_rate(epoch: int, config: TrainConfig) -> float:
    # Released code: 0 in epoch 1, the peak in epochs W + 1 and W + 2 (W = 20 of 200),
    # then a cosine whose period is the other 90 %.
    warmup = config.warmup * config.epochs
    if epoch - 1 <= warmup:
        return config.learning_rate * (epoch - 1) / max(warmup, 1)
    since_peak = epoch - (math.floor(warmup) + 2)
    progress = since_peak / (config.epochs - warmup)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


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
            answer_size=self.train.answer_size(dataset.scheme),
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
        model = {"answer_size": 1, **values["model"]}
        train = with_later_settings(values["train"])
        encoder = _build(EncoderConfig, model.pop("encoder"))
        return cls(
            name=values["name"],
            model=_build(
                method_class(values.get("method", "lnln")).config_type,
                {**model, "encoder": encoder},
            ),
            loss=_build(LossWeights, values["loss"]),
            train=_build(TrainConfig, train),
        )


def with_later_settings(train: dict[str, Any]) -> dict[str, Any]:
    """Stored training settings with those that runs of earlier versions do not say."""
    return {"answer": "point", "encoder_rate": 1.0, **train}


def _build(kind: Any, values: dict[str, Any]) -> Any:
    expected = {f.name for f in fields(kind)}
    if set(values) != expected:
        wrong = sorted(set(values) ^ expected)
        raise ValueError(f"{kind.__name__}: missing or unknown settings {wrong}")
    # JSON has no tuples.
    tuples = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
    return kind(**{**values, **tuples})


def help_of(settings: type) -> dict[str, str]:
    """What each field of a settings class means: the "Attributes" of its docstring."""
    text = inspect.getdoc(settings) or ""
    entries = re.findall(
        r"^    (\w[\w, ]*): (.+(?:\n     .+)*)", text.partition("Attributes:")[2], re.M
    )
    return {
        name.strip(): " ".join(meaning.split()).rstrip(".")
        for names, meaning in entries
        for name in names.split(",")
    }


def with_train(preset: Preset, **changes: Any) -> Preset:
    """The preset with some training settings changed."""
    return replace(preset, train=replace(preset.train, **changes))


def with_settings(preset: Preset, settings: Mapping[str, Any]) -> Preset:
    """The preset with some settings of any kind changed.

    Args:
        preset: of any method.
        settings: {dotted name: value}, such as "train.ema", "loss.alpha" or
            "model.encoder.dropout"; of a tuple all entries, or one, as "model.rates.1".

    Raises:
        SettingsError: there is no such setting, or the value is of another kind.
    """
    for name, value in settings.items():
        preset = _changed(preset, name.split("."), value, name)
    return preset


def _changed(old: Any, path: list[str], value: Any, name: str) -> Any:
    if not path:
        if isinstance(old, tuple):
            return tuple(_changed(entry, [], value, name) for entry in old)
        kinds = (int, float) if isinstance(old, float) else (type(old),)
        if type(value) not in kinds:
            raise SettingsError(f"{name} is set to {value!r} where {old!r} was")
        return value
    head, *rest = path
    if isinstance(old, tuple) and head.isdecimal() and int(head) < len(old):
        place = int(head)
        entry = _changed(old[place], rest, value, name)
        return (*old[:place], entry, *old[place + 1 :])
    if not is_dataclass(old) or head not in {field.name for field in fields(old)}:
        raise SettingsError(f"{name}: there is no such setting of this method")
    changes: dict[str, Any] = {head: _changed(getattr(old, head), rest, value, name)}
    return replace(old, **changes)  # type: ignore[type-var]
