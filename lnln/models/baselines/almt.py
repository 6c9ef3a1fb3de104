"""ALMT: language guides a hyper-modality that is learnt from audio and vision.

Zhang et al., EMNLP 2023. LNLN is built from the same blocks. Follows the published
program where results rest on it: padding is attended to, the hyper-modality stream is
normalised in every layer, and the prediction is read from the class token alone, which
language reaches only by steering what is taken from audio and vision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from lnln.data.batch import MODALITIES, Batch
from lnln.models.blocks.answers import task_loss
from lnln.models.lnln import FusionTransformer, LNLNConfig, ModalityEmbedding
from lnln.models.method import Method, ModelConfig, Prediction, Step
from lnln.models.released import (
    ReleasedHyperModality,
    ScalesWithPositions,
    start_as_released,
)


@dataclass(frozen=True)
class ALMTConfig(ModelConfig):
    """Sizes of ALMT (values for MOSI).

    Attributes:
        tokens, width: n learnt tokens and their width D.
        heads, head_width, ffn_width: of all Transformer layers.
        embedding_depth: layers of each modality's embedding.
        scales, hyper_heads: scales of language, and heads of the hyper-modality.
        fusion_depth: layers of the fusion.
    """

    method: ClassVar[str] = "almt"
    tokens: int = 8
    width: int = 128
    heads: int = 8
    head_width: int = 64
    ffn_width: int = 128
    embedding_depth: int = 1
    scales: int = 3
    hyper_heads: int = 8
    fusion_depth: int = 2

    def blocks(self) -> LNLNConfig:
        """The configuration of the blocks that ALMT shares with LNLN."""
        names = set(self.__dataclass_fields__) - {"method"}
        values = {name: getattr(self, name) for name in names}
        return LNLNConfig(**values)


class ALMT(Method):
    """The network.

    Args:
        config: sizes.
        architecture: see `TextEncoder`; for loading checkpoints.
    """

    shareable = True
    config: ALMTConfig
    config_type = ALMTConfig

    def __init__(
        self, config: ALMTConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__(config, architecture)
        blocks = config.blocks()
        shapes = {
            "l": (self.text_encoder.width, config.text_length),
            "a": (config.audio_width, config.audio_length),
            "v": (config.vision_width, config.vision_length),
        }
        self.embedding = nn.ModuleDict(
            {m: ModalityEmbedding(blocks, *shapes[m]) for m in MODALITIES}
        )
        self.scales = ScalesWithPositions(blocks)
        self.hyper_modality = ReleasedHyperModality(blocks)
        self.fusion = FusionTransformer(blocks)
        self.head = nn.Linear(config.width, 1)
        start_as_released(self)

    def trim(self, batch: Batch) -> Batch:
        """Pad to the model's lengths: padding is attended to, so it must not vary."""
        c = self.config
        return batch.pad(c.text_length, c.audio_length, c.vision_length)

    def forward(self, batch: Batch) -> Prediction:
        """Predict from (corrupted) utterances, padded by `trim`."""
        inputs = {
            "l": self.text_encoder(batch.tokens, batch.token_lengths),
            "a": batch.audio,
            "v": batch.vision,
        }
        h = {m: self.embedding[m](x, None) for m, x in inputs.items()}
        scales = self.scales(h["l"])
        hyper = self.hyper_modality(scales, h["a"], h["v"])
        fused = self.fusion(scales[-1], hyper)
        answer = self.head(fused[:, 0]).squeeze(-1)
        return Prediction(answer, {"hyper": hyper, "scales": scales})

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The squared error of the sentiment, and nothing else."""
        output = step.forward(step.erased.batch)
        error = task_loss(output.answer, step.labels, mse_loss)
        return {"sentiment": error, "total": error}
