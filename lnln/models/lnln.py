"""LNLN, the Language-dominated Noise-resistant Learning Network, in the paper's order.

U^1_m corrupted and U^0_m complete input of modality m (l language, a audio, v vision);
H^1_m embedded modality; w completeness; H^1_p proxy dominant feature; H^1_d corrected
dominant feature, H^i_d at scale i; H^i_hyper hyper-modality. B batch, T tokens, d model
width; T_m, d_m length and width of an input. Numbers of equations are the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from lnln.data.batch import MODALITIES, Batch
from lnln.data.errors import SettingsError, require
from lnln.missing.gaps import missing_before
from lnln.models.blocks.answers import task_loss
from lnln.models.blocks.layers import (
    MultiHeadAttention,
    Perceptron,
    TransformerEncoder,
    TransformerLayer,
    learnable,
    prepend,
    reverse_gradient,
)
from lnln.models.method import (
    Losses,
    LossWeights,
    Method,
    ModelConfig,
    Output,
    Reconstruction,
    Step,
    Variant,
    Versions,
)


@dataclass(frozen=True)
class LNLNConfig(ModelConfig):
    """Sizes of the network (paper, Table 1; the authors' program where it is silent).

    Attributes:
        variant: this network, or one that differs by named choices; also as text.
        tokens, width: learnable tokens T of each modality, and the model width d.
        heads, head_width, ffn_width: of all layers but those of the hyper-modality,
            which have `hyper_heads` of width / hyper_heads.
        embedding_depth, generator_depth, completeness_depth: their Transformer layers.
        reconstructor_depth, fusion_depth: likewise.
        scales: of the dominant feature, hence hyper-modality layers.
        dropout: in every layer; the text encoder has its own.
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

    def encoder_of(self, length: int, depth: int) -> TransformerEncoder:
        """A self-attention encoder of these widths."""
        widths = (self.width, self.heads, self.head_width, self.ffn_width)
        return TransformerEncoder(length, depth, *widths, self.dropout)


class ModalityEmbedding(nn.Module):
    """Eq. 1: H^1_m = E_m([H^0_m; U^1_m W_m + b_m])_{1:T}, with learnable H^0_m."""

    def __init__(self, config: LNLNConfig, input_width: int, length: int) -> None:
        super().__init__()
        self.tokens = learnable(config.tokens, config.width)
        self.project = nn.Linear(input_width, config.width)
        length += config.tokens
        self.encoder = config.encoder_of(length, config.embedding_depth)

    def forward(self, sequence: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T_m, d_m) U^1_m, and (B, T_m) bool where it is real, to (B, T, d)."""
        count = self.tokens.shape[1]
        if mask is not None:
            mask = torch.cat([mask.new_ones(mask.shape[0], count), mask], dim=1)
        x = prepend(self.tokens, self.project(sequence))
        return self.encoder(x, mask, read=count)


class CompletenessCheck(nn.Module):
    """Eq. 5: w = sigmoid(MLP(E_cc([H_cc; H^1_l])_1)); of H_cc, one token will do."""

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.token = learnable(1, config.width)
        self.encoder = config.encoder_of(1 + config.tokens, config.completeness_depth)
        self.head = Perceptron(config.width, 1)

    def forward(self, language: Tensor) -> Tensor:
        """(B, T, d) H^1_l to (B,) w in (0, 1); its target is 1 - r_l."""
        state = self.encoder(prepend(self.token, language), read=1)[:, 0]
        return self.head(state).squeeze(-1).sigmoid()


class ProxyGenerator(nn.Module):
    """Eq. 7: H^1_p = E_DFG([H^0_p; H^1_a; H^1_v])_{1:T}, a stand-in for language."""

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.tokens = learnable(config.tokens, config.width)
        self.encoder = config.encoder_of(3 * config.tokens, config.generator_depth)

    def forward(self, audio: Tensor, vision: Tensor) -> Tensor:
        """(B, T, d) H^1_a and H^1_v to (B, T, d) H^1_p."""
        x = prepend(self.tokens, torch.cat([audio, vision], dim=1))
        return self.encoder(x, read=self.tokens.shape[1])


def correct(proxy: Tensor, language: Tensor, completeness: Tensor) -> Tensor:
    """Eq. 8: H^1_d = (1 - w) H^1_p + w H^1_l, from two (B, T, d) and (B,) w."""
    w = completeness[:, None, None]
    return (1 - w) * proxy + w * language


class EffectivenessDiscriminator(nn.Module):
    """Eq. 9: D tells proxy from language features, token by token."""

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.classify = Perceptron(config.width, 2)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, T, d) to (B, T, 2) logits: class 0 language, class 1 proxy."""
        return self.classify(feature)


class DominantScales(nn.Module):
    """Eq. 2: H^i_d = E^i(H^{i-1}_d), the dominant feature at further scales."""

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.encoder = config.encoder_of(config.tokens, config.scales - 1)

    def forward(self, dominant: Tensor) -> tuple[Tensor, ...]:
        """(B, T, d) H^1_d to (H^1_d, H^2_d, H^3_d), each (B, T, d)."""
        return (dominant, *self.encoder.hidden_states(dominant)[1:])


class HyperModalityLayer(nn.Module):
    """Eq. 3: H^i_hyper = H^{i-1}_hyper + MHA(H^i_d, H^1_a) + MHA(H^i_d, H^1_v)."""

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        width, heads = config.width, config.hyper_heads
        self.norm_dominant = nn.LayerNorm(width)
        self.norm_audio = nn.LayerNorm(width)
        self.norm_vision = nn.LayerNorm(width)
        self.to_audio = MultiHeadAttention(width, heads, width // heads)
        self.to_vision = MultiHeadAttention(width, heads, width // heads)

    def forward(
        self, hyper: Tensor, dominant: Tensor, audio: Tensor, vision: Tensor
    ) -> Tensor:
        """(B, T, d) H^{i-1}_hyper, H^i_d, H^1_a and H^1_v to (B, T, d) H^i_hyper."""
        query = self.norm_dominant(dominant)
        a, v = self.norm_audio(audio), self.norm_vision(vision)
        return hyper + self.to_audio(query, a, a) + self.to_vision(query, v, v)

    def attention_maps(
        self, dominant: Tensor, audio: Tensor, vision: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where the dominant feature looks: two (B, heads, T, T), audio and vision."""
        query = self.norm_dominant(dominant)
        return (
            self.to_audio.attention_map(query, self.norm_audio(audio)),
            self.to_vision.attention_map(query, self.norm_vision(vision)),
        )


class HyperModality(nn.Module):
    """Adaptive hyper-modality learning: a layer for each scale, from H^0_hyper on."""

    layer: ClassVar[type[nn.Module]] = HyperModalityLayer

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.start = learnable(config.tokens, config.width)
        self.layers = nn.ModuleList(self.layer(config) for _ in range(config.scales))

    def forward(
        self, dominants: tuple[Tensor, ...], audio: Tensor, vision: Tensor
    ) -> Tensor:
        """(H^1_d, H^2_d, H^3_d), H^1_a and H^1_v, (B, T, d) each, to H^3_hyper."""
        hyper = self.start.expand(audio.shape[0], -1, -1)
        for layer, dominant in zip(self.layers, dominants, strict=True):
            hyper = layer(hyper, dominant, audio, vision)
        return hyper


class FusionTransformer(nn.Module):
    """Eq. 4: cross-attention from H^3_d to H^3_hyper, a shared token before each."""

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        length = 1 + config.tokens
        self.token = learnable(1, config.width)
        self.query_positions = learnable(length, config.width)
        self.memory_positions = learnable(length, config.width)
        widths = (config.width, config.heads, config.head_width, config.ffn_width)
        self.layers = nn.ModuleList(
            TransformerLayer(*widths, config.dropout)
            for _ in range(config.fusion_depth)
        )

    def forward(self, dominant: Tensor, hyper: Tensor) -> Tensor:
        """(B, T, d) H^3_d and H^3_hyper to (B, 1 + T, d)."""
        x = prepend(self.token, dominant) + self.query_positions
        memory = prepend(self.token, hyper) + self.memory_positions
        for layer in self.layers:
            x = layer(x, memory)
        return x


class Predictor(nn.Module):
    """y-hat: the mean over the T fused query tokens, then Linear(d, 1)."""

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.head = nn.Linear(config.width, 1)

    def forward(self, fused: Tensor) -> Tensor:
        """(B, 1 + T, d) fused tokens to the answer, (B,) y-hat."""
        return self.head(fused[:, 1:].mean(dim=1)).squeeze(-1)


class Reconstructor(nn.Module):
    """Eq. 11: E^m_rec estimates U^0_m from U^1_m, between linear maps to d and back."""

    def __init__(self, config: LNLNConfig, input_width: int, length: int) -> None:
        super().__init__()
        self.project = nn.Linear(input_width, config.width)
        self.encoder = config.encoder_of(length, config.reconstructor_depth)
        self.restore = nn.Linear(config.width, input_width)

    def forward(self, sequence: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T_m, d_m) U^1_m and (B, T_m) bool, True where it is real, to the same."""
        return self.restore(self.encoder(self.project(sequence), mask))


class LNLN(Method):
    """The network (paper, Fig. 1); arguments as of `Method`."""

    shareable = True
    config: LNLNConfig
    config_type = LNLNConfig
    last = "predictor.head"
    #: The parts that a variant may replace.
    generator: ClassVar[type[nn.Module]] = ProxyGenerator
    scales: ClassVar[type[nn.Module]] = DominantScales
    hyper: ClassVar[type[nn.Module]] = HyperModality
    rebuilder: ClassVar[type[nn.Module]] = Reconstructor
    mix = staticmethod(correct)
    #: Whether a training step embeds the complete input, too.
    second_pass: ClassVar[bool] = False

    def __init__(
        self, config: LNLNConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        if type(self) is LNLN and config.variant != Variant():
            raise SettingsError(f"build variant {config.variant} with lnln.build_model")
        super().__init__(config, architecture)
        sizes = {
            "l": (self.text_encoder.width, config.text_length),
            "a": (config.audio_width, config.audio_length),
            "v": (config.vision_width, config.vision_length),
        }
        self.embedding = nn.ModuleDict(
            {m: ModalityEmbedding(config, *sizes[m]) for m in MODALITIES}
        )
        self.completeness_check = CompletenessCheck(config)
        self.proxy_generator = self.generator(config)
        self.discriminator = EffectivenessDiscriminator(config)
        self.dominant_scales = self.scales(config)
        self.hyper_modality = self.hyper(config)
        self.fusion = FusionTransformer(config)
        self.predictor = Predictor(config)
        self.reconstructor = nn.ModuleDict(
            {m: self.rebuilder(config, *sizes[m]) for m in MODALITIES}
        )

    def forward(
        self, batch: Batch, complete: Batch | None = None, reconstruct: bool = True
    ) -> Output:
        """Predict from B utterances U^1; `complete`, the same U^0, is for training."""
        seen = self.versions(batch, complete)
        output = self.answer(seen.embedded)
        proxy, language = map(self.discriminator, self.judged(output, seen))
        wanted = complete if reconstruct else None
        rebuilt = {} if wanted is None else self.reconstruct(seen, wanted)
        logits = {"proxy_logits": proxy, "language_logits": language}
        return replace(output, reconstructions=rebuilt, **logits)

    def answer(self, embedded: dict[str, Tensor]) -> Output:
        """From the embedded modalities H^1_m to the prediction."""
        language, audio, vision = (embedded[m] for m in MODALITIES)
        completeness = self.completeness_check(language)
        proxy = self.proxy_generator(audio, vision)
        corrected = self.mix(proxy, language, completeness)
        dominants = self.dominant_scales(corrected)
        hyper = self.hyper_modality(dominants, audio, vision)
        fused = self.fusion(dominants[-1], hyper)
        answer = self.predictor(fused)
        found = (proxy, corrected, dominants, hyper, fused)
        return Output(answer, completeness, embedded, *found)

    def versions(self, batch: Batch, complete: Batch | None) -> Versions:
        """U^1_m and H^1_m of a batch; U^0_m is data for L_rec, nothing to learn."""
        inputs = targets = self.inputs(batch)
        if complete is not None:
            with torch.no_grad():
                targets = self.inputs(complete)
        embed = self.embedding
        embedded = {m: embed[m](inputs[m], self.mask(batch, m)) for m in MODALITIES}
        return Versions(inputs, targets, embedded, embedded)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """(B, T_m, d_m) U_m of each modality: words as the text encoder reads them."""
        text = self.text_encoder(batch.tokens, batch.token_lengths)
        return {"l": text, "a": batch.audio, "v": batch.vision}

    def mask(self, batch: Batch, modality: str) -> Tensor | None:
        """(B, T_m) bool, True where an embedding may look; None: everywhere."""
        return batch.mask(modality)

    def judged(self, output: Output, seen: Versions) -> tuple[Tensor, Tensor]:
        """What D is to tell apart: the proxy, reversed, from language, detached."""
        return reverse_gradient(output.proxy), seen.embedded["l"].detach()

    def reconstruct(self, seen: Versions, complete: Batch) -> dict[str, Reconstruction]:
        """What L_rec compares; what was missing before it was erased is no target."""
        compared = {}
        for m in MODALITIES:
            estimate = self.reconstructor[m](seen.inputs[m], self.mask(complete, m))
            mask = complete.mask(m) & ~missing_before(complete, m)
            compared[m] = Reconstruction(estimate, seen.targets[m], mask)
        return compared

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The four terms of a training step by name, and their weighted "total"."""
        reconstruct = step.weights.gamma > 0
        complete = step.complete if reconstruct or self.second_pass else None
        output = step.forward(step.erased.batch, complete, reconstruct)
        completeness = step.erased.nominal[:, 0]
        return lnln_losses(output, step.labels, completeness, step.weights)._asdict()


def adversarial_loss(proxy_logits: Tensor, language_logits: Tensor) -> Tensor:
    """Eq. 10: L_adv, cross-entropy of D over 2 B T tokens; printed for class 1 only."""
    logits = torch.cat([proxy_logits, language_logits]).flatten(0, 1)
    target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    target[: len(logits) // 2] = 1
    return cross_entropy(logits, target)


def reconstruction_loss(reconstructions: dict[str, Reconstruction]) -> Tensor:
    """Eq. 12: L_rec over real positions; a mean, to which gamma = 0.1 refers."""
    terms = []
    for part in reconstructions.values():
        error = (part.estimate - part.target).pow(2).mean(dim=-1)
        terms.append((error * part.mask).sum() / part.mask.sum().clamp(min=1))
    return torch.stack(terms).mean() if terms else torch.zeros(())


def lnln_losses(
    output: Output, labels: Tensor, completeness: Tensor, weights: LossWeights
) -> Losses:
    """Eqs. 6, 10, 12, 13 and their sum 14, for (B,) y and (B,) targets 1 - r_l of w."""
    assert output.proxy_logits is not None and output.language_logits is not None
    l_cc = mse_loss(output.completeness, completeness)
    l_adv = adversarial_loss(output.proxy_logits, output.language_logits)
    l_rec = reconstruction_loss(output.reconstructions).to(l_cc.device)
    l_sp = task_loss(output.answer, labels, mse_loss)
    w = weights
    total = w.alpha * l_cc + w.beta * l_adv + w.gamma * l_rec + w.delta * l_sp
    return Losses(l_sp, l_cc, l_adv, l_rec, total)
