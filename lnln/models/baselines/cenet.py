"""CENET: audio and vision shift the words inside the language model.

Wang et al., IEEE TMM 2022, in the form of MMSA's program, which maps frames by a
perceptron instead of a learnt vocabulary. Results rest on these: scores are multiplied
by 8, frames are not masked, and the language model's embeddings are not trained (they
are where it is built from scratch, since nothing else would ever set them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from lnln.data.batch import Batch
from lnln.data.errors import SettingsError
from lnln.models.blocks.answers import task_loss
from lnln.models.method import (
    Method,
    ModelConfig,
    Optimisation,
    Prediction,
    Recipe,
    Step,
)

SCALE = 8.0


@dataclass(frozen=True)
class CENETConfig(ModelConfig):
    """Settings of CENET (values for MOSI); all widths are the encoder's.

    Attributes:
        dropout: of the head.
        freeze_embeddings: do not train the encoder's embeddings.
        epsilon: of Adam.
        clip_norm: largest norm of the gradient.
    """

    method: ClassVar[str] = "cenet"
    dropout: float = 0.1
    freeze_embeddings: bool = True
    epsilon: float = 3e-8
    clip_norm: float = 2.0


class CrossModalEnhancement(nn.Module):
    """The shift that all frames of audio and vision give to every word.

    Args:
        width: D of the words.
        audio_width, vision_width: d_a, d_v.
    """

    def __init__(self, width: int, audio_width: int, vision_width: int) -> None:
        super().__init__()
        widths = {"a": audio_width, "v": vision_width}
        self.frames = nn.ModuleDict(
            {
                m: nn.Sequential(
                    nn.Linear(d, width), nn.ReLU(), nn.Linear(width, width)
                )
                for m, d in widths.items()
            }
        )
        self.maps = nn.ModuleDict(
            {m + k: nn.Linear(width, width) for m in widths for k in "qkv"}
        )
        self.shift = nn.Linear(2 * width, width)

    def forward(self, words: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        """(B, T_l, D) words and (B, T_m, d_m) frames to the shift, (B, T_l, D)."""
        found = []
        for m, frames in (("v", vision), ("a", audio)):
            mapped = self.frames[m](frames)
            q, k = self.maps[m + "q"](words), self.maps[m + "k"](mapped)
            weights = (SCALE * q @ k.transpose(1, 2)).softmax(dim=-1)
            found.append(weights @ self.maps[m + "v"](mapped))
        shift: Tensor = self.shift(torch.cat(found, dim=-1))
        return shift


class CENET(Method):
    """The network.

    Args:
        config: settings.
        architecture: see `TextEncoder`; for loading checkpoints.

    Raises:
        SettingsError: the encoder has no BERT layers to put the shift between.
    """

    shareable = True
    config: CENETConfig
    config_type = CENETConfig
    last = "head.4"

    def __init__(
        self, config: CENETConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__(config, architecture)
        width = self.text_encoder.width
        self.enhance = CrossModalEnhancement(
            width, config.audio_width, config.vision_width
        )
        self.head = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Dropout(config.dropout),
            nn.Linear(width, 1),
        )
        for module in (*self.enhance.modules(), *self.head.modules()):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        bert = self.text_encoder.bert
        if not hasattr(getattr(bert, "encoder", None), "layer"):
            raise SettingsError("CENET needs an encoder with BERT's layers")
        if config.freeze_embeddings:
            bert.embeddings.requires_grad_(False)
        self._batch: Batch | None = None
        bert.encoder.layer[0].register_forward_hook(self._shift)

    def _shift(self, layer: nn.Module, inputs: Any, output: Any) -> Any:
        if self._batch is None:
            return None
        words = output[0] if isinstance(output, tuple) else output
        moved = words + self.enhance(words, self._batch.audio, self._batch.vision)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    def trim(self, batch: Batch) -> Batch:
        """Pad frames to the model's lengths: all of them take part."""
        c = self.config
        return batch.pad(c.text_length, c.audio_length, c.vision_length)

    def forward(self, batch: Batch) -> Prediction:
        """Predict from (corrupted) utterances, padded by `trim`."""
        self._batch = batch
        try:
            text = self.text_encoder(batch.tokens, batch.token_lengths)
        finally:
            self._batch = None
        return Prediction(self.head(text[:, 0]).squeeze(-1), {})

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The absolute error of the sentiment, and nothing else."""
        output = step.forward(step.erased.batch)
        error = task_loss(output.answer, step.labels, l1_loss)
        return {"sentiment": error, "total": error}

    def recipe(self, train: Optimisation) -> Recipe:
        """Adam; biases and LayerNorms outside of the enhancement do not decay."""
        decayed: list[Tensor] = []
        plain: list[Tensor] = []
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            exempt = not name.startswith("enhance") and (
                name.endswith("bias") or "LayerNorm" in name
            )
            (plain if exempt else decayed).append(parameter)
        rate = train.learning_rate
        groups: list[dict[str, Any]] = [
            {"params": decayed, "lr": rate, "weight_decay": train.weight_decay},
            {"params": plain, "lr": rate, "weight_decay": 0.0},
        ]
        return Recipe(
            groups,
            coupled=True,
            epsilon=self.config.epsilon,
            clip_norm=self.config.clip_norm,
        )
