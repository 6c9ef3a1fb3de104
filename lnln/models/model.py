"""LNLN assembled, as the paper writes it (Fig. 1) or as it was released.

`LNLNConfig.variant` decides; item numbers are those of the list in `lnln.paper.released`.
A part that a variant leaves out is built all the same, and not used.

Notation as in `lnln.models.components`; U^0_m is the complete input of modality m.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lnln.data.batch import MODALITIES, Batch, valid_positions
from lnln.missing.erasing import Erased
from lnln.models.components import (
    CompletenessCheck,
    EffectivenessDiscriminator,
    ModalityEmbedding,
    ProxyGenerator,
    Reconstructor,
    correct,
    encoder_of,
)
from lnln.models.config import LNLNConfig
from lnln.models.dmml import (
    Concatenation,
    DominantScales,
    FusionTransformer,
    HyperModality,
    Predictor,
)
from lnln.models.encoder import TextEncoder
from lnln.models.grouping import encode_both, encode_in_groups
from lnln.models.layers import reverse_gradient
from lnln.models.losses import lnln_losses
from lnln.models.method import Item, Method
from lnln.models.output import Output, Reconstruction


class LNLN(Method):
    """The Language-dominated Noise-resistant Learning Network (paper, Fig. 1).

    Args:
        config: sizes of the network.
        encoder_architecture: see `TextEncoder`; for loading checkpoints.
    """

    shareable = True
    config: LNLNConfig

    def __init__(
        self, config: LNLNConfig, encoder_architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.text_encoder = TextEncoder(
            config.encoder,
            config.text_length,
            encoder_architecture,
            pooler=config.variant.fully_released,
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
        if config.lacks("dmml"):
            self.concatenation = Concatenation(config)
        self.reconstructor = nn.ModuleDict(
            {m: _reconstructor(config, *shapes[m]) for m in MODALITIES}
        )
        if config.as_released("start"):
            self._start_as_released()

    def trim(self, batch: Batch) -> Batch:
        """Cut padding that the model does not look at.

        Where padding is masked, every sequence is cut to the longest real one. Where
        it is attended to (released code, item 9), the padded length is part of the
        input, so sequences are padded to the model's own lengths instead.
        """
        if not self.config.as_released("padding"):
            return batch.trim()
        config = self.config
        return batch.pad(config.text_length, config.audio_length, config.vision_length)

    def forward(
        self, batch: Batch, complete: Batch | None = None, reconstruct: bool = True
    ) -> Output:
        """Predict sentiment, and what the losses and the book's plots need.

        Args:
            batch: B corrupted utterances U^1 (or complete ones).
            complete: the same utterances U^0, equally long, for L_rec and for the
                released L_adv (item 4); None: neither sees them.
            reconstruct: whether L_rec is wanted.

        Returns:
            `Output`.
        """
        inputs, targets = self._inputs(batch, complete)
        embedded, intact = self._embed(inputs, targets, batch)
        read = self._read(embedded)
        # Item 4. As written, D judges H^1_p, and the reversal stands before D only; as
        # released, D judges the mixture, in which language takes part.
        if self.config.as_released("adversary"):
            judged = (read["dominant"], intact["l"])
        else:
            judged = (reverse_gradient(read["proxy"]), embedded["l"].detach())
        proxy_logits, language_logits = map(self.discriminator, judged)
        if complete is None or not reconstruct:
            reconstructions = {}
        elif self.config.as_released("reconstruction"):
            reconstructions = self._reconstruct_features(embedded, intact)
        else:
            reconstructions = self._reconstruct_inputs(inputs, targets, batch)
        return Output(
            sentiment=read["sentiment"],
            completeness=read["completeness"],
            proxy_logits=proxy_logits,
            language_logits=language_logits,
            embedded=embedded,
            proxy=read["proxy"],
            dominants=read["dominants"],
            hyper=read["hyper"],
            fused=read["fused"],
            reconstructions=reconstructions,
        )

    def losses(self, item: Item) -> dict[str, Tensor]:
        """The four terms and their weighted sum; see `lnln.models.losses`."""
        reconstruct = item.weights.gamma > 0
        needed = reconstruct or self.config.as_released("adversary")
        output = item.forward(
            item.erased.batch, item.complete if needed else None, reconstruct
        )
        found = lnln_losses(
            output, item.labels, item.erased.nominal[:, 0], item.weights
        )
        parts = ("sentiment", "completeness", "adversarial", "reconstruction")
        return {name: getattr(found, name) for name in (*parts, "total")}

    @torch.no_grad()
    def predict_corruptions(
        self, complete: Batch, corruptions: Sequence[Erased]
    ) -> tuple[Tensor, Tensor]:
        """As `Method.predict_corruptions`, with the work shared between corruptions."""
        texts = [erased.batch for erased in corruptions]
        lengths = complete.token_lengths.repeat(len(texts))
        tokens = torch.cat([part.tokens for part in texts])
        mask = valid_positions(lengths, tokens.shape[1])
        released = self.config.as_released("padding")
        embed = self._by_length(self.embedding["l"])
        text = self._encode_text(tokens, lengths)
        embedded = {"l": embed(text, None if released else mask)}
        for m in ("a", "v"):
            kept = torch.stack([erased.kept[m] for erased in corruptions], dim=1)
            frames, sizes = complete.sequence(m), complete.lengths(m).tolist()
            if released:
                sizes = [frames.shape[1]] * len(frames)
            embedding = cast(ModalityEmbedding, self.embedding[m])
            parts = [
                embedding.corruptions(frames[i, :n], kept[i, :, :n])
                for i, n in enumerate(sizes)
            ]
            embedded[m] = torch.stack(parts, dim=1).flatten(0, 1)
        read = self._read(embedded)
        shape = (len(texts), len(complete))
        return read["sentiment"].view(shape), read["completeness"].view(shape)

    def predict_plain(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B,) sentiment and (B,) completeness, every sequence at its padded length.

        The same as `forward` gives, by a fixed sequence of operations that does not
        depend on lengths, as `lnln.evaluation.export` needs it.
        """
        text = self.text_encoder(batch.tokens, batch.token_lengths)
        inputs = {"l": text, "a": batch.audio, "v": batch.vision}
        read = self._read(
            {m: self.embedding[m](x, self._mask(batch, m)) for m, x in inputs.items()}
        )
        return read["sentiment"], read["completeness"]

    def _read(self, embedded: dict[str, Tensor]) -> dict[str, Any]:
        """From the embedded modalities to the prediction."""
        language, audio, vision = (embedded[m] for m in MODALITIES)
        completeness = self.completeness_check(language)
        proxy = self.proxy_generator(audio, vision)
        # Item 2: as released, the gradient of L_sp is reversed here, too.
        released_game = self.config.as_released("adversary")
        mixed = reverse_gradient(proxy) if released_game else proxy
        dominant = correct(mixed, language, completeness)
        if self.config.lacks("dmc"):
            dominant = language
        dominants = self.dominant_scales(dominant)
        hyper = self.hyper_modality(dominants, audio, vision)
        fused = self.fusion(dominants[-1], hyper)
        sentiment = self.predictor(fused)
        if self.config.lacks("dmml"):
            sentiment = self.concatenation(dominant, audio, vision)
        return {
            "completeness": completeness,
            "proxy": proxy,
            "dominant": dominant,
            "dominants": dominants,
            "hyper": hyper,
            "fused": fused,
            "sentiment": sentiment,
        }

    def _inputs(
        self, batch: Batch, complete: Batch | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """U^1_m and, where a complete batch is given, U^0_m; else U^1_m twice."""
        encode = self._encode_text
        if complete is None:
            text = intact = encode(batch.tokens, batch.token_lengths)
            complete = batch
        else:
            same = _equal_rows(batch.tokens, complete.tokens) & (
                not self.text_encoder.noisy
            )
            text, intact = encode_both(
                encode,
                (batch.tokens, batch.token_lengths),
                (complete.tokens, complete.token_lengths),
                same,
                # As written, the target of L_rec is data, not something to learn.
                second_learns=self._second_pass,
            )
        return (
            {"l": text, "a": batch.audio, "v": batch.vision},
            {"l": intact, "a": complete.audio, "v": complete.vision},
        )

    def _encode_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        if self.config.as_released("padding"):
            # What BERT gives behind a sentence is read there (item 9).
            features: Tensor = self.text_encoder(tokens, lengths)
            return features
        return encode_in_groups(
            lambda part, mask: self.text_encoder(part, mask.sum(dim=1)),
            tokens,
            valid_positions(lengths, tokens.shape[1]),
            every_position=True,
        )

    @property
    def _second_pass(self) -> bool:
        # Items 4 and 6: the released program embeds the complete input, too.
        config = self.config
        return config.as_released("adversary") or config.as_released("reconstruction")

    def _embed(
        self, inputs: dict[str, Tensor], targets: dict[str, Tensor], batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """H^1_m of the corrupted and, if the variant needs it, the complete input."""
        embedded, intact = {}, {}
        noisy = self.training and self.config.dropout > 0
        for m in MODALITIES:
            embed, mask = self._by_length(self.embedding[m]), self._mask(batch, m)
            if targets[m] is inputs[m] or not self._second_pass:
                embedded[m] = intact[m] = embed(inputs[m], mask)
                continue
            same = _equal_rows(inputs[m], targets[m]) & (not noisy)
            embedded[m], intact[m] = encode_both(
                embed, (inputs[m], mask), (targets[m], mask), same
            )
        return embedded, intact

    def _mask(self, batch: Batch, modality: str) -> Tensor | None:
        released = self.config.as_released("padding")
        return None if released else batch.mask(modality)

    @staticmethod
    def _by_length(
        encode: nn.Module, every_position: bool = False
    ) -> Callable[[Tensor, Tensor | None], Tensor]:
        def grouped(sequence: Tensor, mask: Tensor | None) -> Tensor:
            if mask is None:
                result: Tensor = encode(sequence, None)
                return result
            return encode_in_groups(encode, sequence, mask, every_position)

        return grouped

    def _reconstruct_inputs(
        self, inputs: dict[str, Tensor], targets: dict[str, Tensor], batch: Batch
    ) -> dict[str, Reconstruction]:
        return {
            m: Reconstruction(
                self._by_length(self.reconstructor[m], every_position=True)(
                    inputs[m], self._mask(batch, m)
                ),
                targets[m],
                batch.mask(m),
            )
            for m in MODALITIES
        }

    def _reconstruct_features(
        self, embedded: dict[str, Tensor], intact: dict[str, Tensor]
    ) -> dict[str, Reconstruction]:
        return {
            m: Reconstruction(
                self.reconstructor[m](embedded[m]),
                intact[m],
                torch.ones_like(embedded[m][..., 0], dtype=torch.bool),
            )
            for m in MODALITIES
        }

    @torch.no_grad()
    def _start_as_released(self) -> None:
        # Item 14. H^0_p and H^0_hyper are constant, everything put in front is zero.
        for name, parameter in self.named_parameters():
            if name.startswith("text_encoder"):
                continue
            if name.endswith("positions"):
                parameter.normal_()
            elif name in ("proxy_generator.tokens", "hyper_modality.start"):
                parameter.fill_(1.0)
            elif name.endswith(("tokens", "token", "prefix")):
                parameter.zero_()


def _reconstructor(config: LNLNConfig, input_width: int, length: int) -> nn.Module:
    if config.as_released("reconstruction"):
        return encoder_of(config, config.tokens, config.reconstructor_depth)
    return Reconstructor(config, input_width, length)


def _equal_rows(a: Tensor, b: Tensor) -> Tensor:
    return (a == b).flatten(1).all(dim=1)
