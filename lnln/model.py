"""LNLN assembled, as the paper writes it (Fig. 1).

Notation as in `lnln.components`; U^0_m is the complete input of modality m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lnln.components import (
    CompletenessCheck,
    DominantScales,
    EffectivenessDiscriminator,
    FusionTransformer,
    HyperModality,
    ModalityEmbedding,
    Predictor,
    ProxyGenerator,
    Reconstructor,
    correct,
)
from lnln.config import LNLNConfig
from lnln.data import MODALITIES, Batch
from lnln.encoder import TextEncoder
from lnln.layers import reverse_gradient


@dataclass(frozen=True)
class Reconstruction:
    """What L_rec compares, per modality "l", "a", "v".

    Attributes:
        estimate: (B, T_m, d_m) from the corrupted input.
        target: (B, T_m, d_m) U^0_m; for language the encoder's features of the
            complete text, without gradient.
        mask: (B, T_m) bool, True at real positions.
    """

    estimate: Tensor
    target: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Output:
    """What a forward pass gives.

    Attributes:
        sentiment: (B,) prediction y-hat.
        completeness: (B,) w.
        proxy_logits, language_logits: (B, T, 2) discriminator on H^1_p (gradient
            reversed) and on H^1_l (detached): only D and the generator's side play.
        embedded: {"l" | "a" | "v": (B, T, d) H^1_m}.
        proxy: (B, T, d) H^1_p.
        dominants: (H^1_d, H^2_d, H^3_d), each (B, T, d).
        hyper: (B, T, d) H^3_hyper.
        reconstructions: per modality where a complete batch was given, else empty.
    """

    sentiment: Tensor
    completeness: Tensor
    proxy_logits: Tensor
    language_logits: Tensor
    embedded: dict[str, Tensor]
    proxy: Tensor
    dominants: tuple[Tensor, ...]
    hyper: Tensor
    reconstructions: dict[str, Reconstruction]


class LNLN(nn.Module):
    """The Language-dominated Noise-resistant Learning Network (paper, Fig. 1).

    Args:
        config: sizes of the network.
        encoder_architecture: see `TextEncoder`; for loading checkpoints.
    """

    def __init__(
        self, config: LNLNConfig, encoder_architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.text_encoder = TextEncoder(
            config.encoder, config.text_length, encoder_architecture
        )
        shapes = {
            "l": (self.text_encoder.width, config.text_length),
            "a": (config.audio_width, config.audio_length),
            "v": (config.vision_width, config.vision_length),
        }
        self.embedding = nn.ModuleDict(
            {m: ModalityEmbedding(config, *shapes[m]) for m in MODALITIES}
        )
        self.completeness_check = CompletenessCheck(config)
        self.proxy_generator = ProxyGenerator(config)
        self.discriminator = EffectivenessDiscriminator(config)
        self.dominant_scales = DominantScales(config)
        self.hyper_modality = HyperModality(config)
        self.fusion = FusionTransformer(config)
        self.predictor = Predictor(config)
        self.reconstructor = nn.ModuleDict(
            {m: Reconstructor(config, *shapes[m]) for m in MODALITIES}
        )

    def forward(self, batch: Batch, complete: Batch | None = None) -> Output:
        """Predict sentiment, and what the losses and the book's plots need.

        Args:
            batch: B corrupted utterances U^1 (or complete ones).
            complete: the same utterances U^0, if L_rec is wanted.

        Returns:
            `Output`.
        """
        text = self.text_encoder(batch.tokens, batch.token_lengths)
        inputs = {"l": text, "a": batch.audio, "v": batch.vision}
        embedded = {m: self.embedding[m](inputs[m], batch.mask(m)) for m in MODALITIES}
        language, audio, vision = (embedded[m] for m in MODALITIES)
        completeness = self.completeness_check(language)
        proxy = self.proxy_generator(audio, vision)
        dominants = self.dominant_scales(correct(proxy, language, completeness))
        hyper = self.hyper_modality(dominants, audio, vision)
        return Output(
            sentiment=self.predictor(self.fusion(dominants[-1], hyper)),
            completeness=completeness,
            proxy_logits=self.discriminator(reverse_gradient(proxy)),
            language_logits=self.discriminator(language.detach()),
            embedded=embedded,
            proxy=proxy,
            dominants=dominants,
            hyper=hyper,
            reconstructions=self._reconstruct(inputs, batch, complete),
        )

    def _reconstruct(
        self, inputs: dict[str, Tensor], batch: Batch, complete: Batch | None
    ) -> dict[str, Reconstruction]:
        if complete is None:
            return {}
        with torch.no_grad():
            text = self.text_encoder(complete.tokens, complete.token_lengths)
        targets = {"l": text, "a": complete.audio, "v": complete.vision}
        return {
            m: Reconstruction(
                self.reconstructor[m](inputs[m], batch.mask(m)),
                targets[m],
                batch.mask(m),
            )
            for m in MODALITIES
        }
