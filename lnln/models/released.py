"""Where the released program differs from the paper, choice by choice.

Each class below makes one of the choices that `Variant` names, by overriding what the
paper's `LNLN` does; a variant is the paper's network under the classes of its choices.

The list that item numbers in this package refer to (architecture 1-18, data 19-26,
training 27-28). The paper's way is variant "paper", the released way "released". Items
marked (too) are in variant "paper" too: the paper is silent there, or what it prints
cannot be computed as it stands.

1.        Fusion depth 2 on MOSI, 4 on MOSEI and SIMS; the paper says 4.
2.        The gradient reversal stands before the mixing of H^1_p and H^1_l, not before
          the discriminator: the generator's gradient of L_sp is reversed, too.
3.        L_adv reaches H^1_l, w and BERT unreversed.
4.        D judges H^1_d of the corrupted against H^1_l of the complete input, per
          token.
5.  (too) L_adv is the cross-entropy of both classes; eq. 10 prints one, with which D
          could not lose.
6.        Features H^1_m are reconstructed, not inputs; the target is not detached.
7.  (too) L_rec is a mean over all elements, to which gamma = 0.1 refers; the paper
          prints a sum.
8.        A training step embeds the corrupted and the complete input.
9.        Padding is attended to everywhere but in BERT.
10. (too) Attention is 8 x 64 wide, four times d, except in the hyper-modality layers.
11.       Hyper-modality layers have one query map and one output map for both
          attentions.
12.       They normalise the stream in place: LN(H) + update instead of H + update.
13.       Their first scale is H^1_d with position embeddings added.
14.       Positions start from N(0, 1), tokens in front at 0, H^0_p and H^0_hyper at 1.
15.       The generator has a second learnable block, from which H^1_p is read.
16. (too) The completeness token is one token; in eq. 5 H_cc is (T, d).
17. (too) A token stands before each stream of the fusion, fused tokens 2-9 are
          averaged, and the first query token reaches nothing; the paper does not say
          how y-hat is read.
18.       Widths are fixed; BERT's pooler is stored and not used.
19.       Masks are drawn from one NumPy seed each time: the same uniforms at every
          rate.
20.       Text, audio and vision restart from that seed: their streams coincide.
21.       The seed is 1111, whatever the training seed: runs share the uniforms and
          differ in the rates.
22.       Training rates are drawn once and, in effect, kept for all epochs.
23. (too) Per modality a random half of the utterances has rate 0.
24. (too) The target of w is the nominal completeness (so the paper).
25. (too) The first and the last valid token stay.
26.       What lies behind the stated length is erased from the corrupted copy only.
27.       No early stopping; epoch 1 trains at learning rate 0 and enters the record of
          bests without being saved.
28.       Epochs are chosen on the test split at r = 0.5, one per metric.

Variant "paper" has further settings from the released program that the paper does not
print: the layer form, the linear maps W_m and b_m of the embedding, the weight decay of
1e-4 (no row of Table 1), a warm-up of 10 % (Table 1 has a tick). That early stopping
waits 20 epochs (again a tick) is this book's choice, and so is clipping. The rule of
choosing epochs, `--selection paper`, is that behind the paper's numbers; it is known
from the released program and its authors, not from the paper.

What remains are slips of metric and checkpoint code, mended since or without effect.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lnln.data.batch import MODALITIES, Batch
from lnln.models.blocks.layers import (
    TransformerEncoder,
    attend,
    learnable,
    prepend,
    reverse_gradient,
)
from lnln.models.lnln import (
    LNLN,
    DominantScales,
    HyperModality,
    LNLNConfig,
    ProxyGenerator,
)
from lnln.models.method import Output, Reconstruction, Variant, Versions


class SecondPass(LNLN):
    """Items 4, 6 and 8: a training step embeds the complete input, too, and learns."""

    second_pass = True

    def versions(self, batch: Batch, complete: Batch | None) -> Versions:
        """H^1_m of both versions; without a complete batch, of the first twice."""
        first = super().versions(batch, None)
        if complete is None:
            return first
        second = super().versions(complete, None)
        return Versions(first.inputs, second.inputs, first.embedded, second.embedded)


class Adversary(SecondPass):
    """Items 2 to 5: the game that the released program plays."""

    def mix(self, proxy: Tensor, language: Tensor, completeness: Tensor) -> Tensor:
        """Item 2: the reversal stands before the mixing, so it turns L_sp, too."""
        return super().mix(reverse_gradient(proxy), language, completeness)

    def judged(self, output: Output, seen: Versions) -> tuple[Tensor, Tensor]:
        """Items 3 and 4: H^1_d against H^1_l of the complete input; both learn."""
        return output.corrected, seen.intact["l"]


class FeatureReconstructor(TransformerEncoder):
    """Item 6: an encoder over the T tokens of a feature H^1_m."""

    def __init__(self, config: LNLNConfig, input_width: int, length: int) -> None:
        widths = (config.width, config.heads, config.head_width, config.ffn_width)
        depth = config.reconstructor_depth
        super().__init__(config.tokens, depth, *widths, config.dropout)


class Features(SecondPass):
    """Items 6 to 8: features H^1_m are reconstructed, and the target learns."""

    rebuilder = FeatureReconstructor

    def reconstruct(self, seen: Versions, complete: Batch) -> dict[str, Reconstruction]:
        """From H^1_m of the corrupted input to that of the complete one."""
        return {
            m: Reconstruction(
                self.reconstructor[m](seen.embedded[m]),
                seen.intact[m],
                torch.ones_like(seen.embedded[m][..., 0], dtype=torch.bool),
            )
            for m in MODALITIES
        }


class Padding(LNLN):
    """Item 9: padding is attended to everywhere but in BERT."""

    def trim(self, batch: Batch) -> Batch:
        """Pad to the model's own lengths: they are part of the input."""
        c = self.config
        return batch.pad(c.text_length, c.audio_length, c.vision_length)

    def mask(self, batch: Batch, modality: str) -> Tensor | None:
        """Nothing is hidden."""
        return None


class ScalesWithPositions(DominantScales):
    """Item 13: the list of scales starts after the positions were added to H^1_d."""

    def forward(self, dominant: Tensor) -> tuple[Tensor, ...]:
        """(B, T, d) H^1_d to the three scales, each (B, T, d)."""
        return tuple(self.encoder.hidden_states(dominant))


class ReleasedHyperLayer(nn.Module):
    """Items 11, 12: LN(H^{i-1}_hyper) + W_out (A(H^i_d, H^1_a) + A(H^i_d, H^1_v)).

    One query map, one output map, and a stream that the layer normalises in place.
    """

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.hyper_heads
        self.norm_dominant = nn.LayerNorm(width)
        self.norm_audio = nn.LayerNorm(width)
        self.norm_vision = nn.LayerNorm(width)
        self.norm_hyper = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k_audio = nn.Linear(width, width, bias=False)
        self.to_k_vision = nn.Linear(width, width, bias=False)
        self.to_v_audio = nn.Linear(width, width, bias=False)
        self.to_v_vision = nn.Linear(width, width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(
        self, hyper: Tensor, dominant: Tensor, audio: Tensor, vision: Tensor
    ) -> Tensor:
        """As `HyperModalityLayer.forward`."""
        q, k_audio, k_vision = self._queries_and_keys(dominant, audio, vision)
        v_audio = self._split(self.to_v_audio(self.norm_audio(audio)))
        v_vision = self._split(self.to_v_vision(self.norm_vision(vision)))
        found = attend(q, k_audio, v_audio) + attend(q, k_vision, v_vision)
        update: Tensor = self.to_out(found.transpose(1, 2).flatten(2))
        return self.norm_hyper(hyper) + update

    def attention_maps(
        self, dominant: Tensor, audio: Tensor, vision: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `HyperModalityLayer.attention_maps`."""
        q, *keys = self._queries_and_keys(dominant, audio, vision)
        scale = q.shape[-1] ** -0.5
        to_audio, to_vision = (
            (scale * q @ k.transpose(-1, -2)).softmax(dim=-1) for k in keys
        )
        return to_audio, to_vision

    def _queries_and_keys(
        self, dominant: Tensor, audio: Tensor, vision: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return (
            self._split(self.to_q(self.norm_dominant(dominant))),
            self._split(self.to_k_audio(self.norm_audio(audio))),
            self._split(self.to_k_vision(self.norm_vision(vision))),
        )

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class ReleasedHyperModality(HyperModality):
    """Items 11 and 12 in every layer."""

    layer = ReleasedHyperLayer


class Hyper(LNLN):
    """Items 11 to 13."""

    scales = ScalesWithPositions
    hyper = ReleasedHyperModality


class PrefixedGenerator(ProxyGenerator):
    """Item 15: a second learnable block stands first, and H^1_p is read from it."""

    def __init__(self, config: LNLNConfig) -> None:
        nn.Module.__init__(self)
        self.tokens = learnable(config.tokens, config.width)
        self.prefix = learnable(config.tokens, config.width)
        self.encoder = config.encoder_of(4 * config.tokens, config.generator_depth)

    def forward(self, audio: Tensor, vision: Tensor) -> Tensor:
        """(B, T, d) H^1_a and H^1_v to (B, T, d) H^1_p."""
        x = prepend(self.tokens, torch.cat([audio, vision], dim=1))
        x = prepend(self.prefix, x)
        proxy: Tensor = self.encoder(x, read=self.tokens.shape[1])
        return proxy


class Generator(LNLN):
    """Item 15."""

    generator = PrefixedGenerator


@torch.no_grad()
def start_as_released(network: nn.Module) -> None:
    """Item 14: positions N(0, 1), tokens in front 0, H^0_p and H^0_hyper 1."""
    for name, parameter in network.named_parameters():
        if name.startswith("text_encoder"):
            continue
        if name.endswith("positions"):
            parameter.normal_()
        elif name in ("proxy_generator.tokens", "hyper_modality.start"):
            parameter.fill_(1.0)
        elif name.endswith(("tokens", "token", "prefix")):
            parameter.zero_()


class Start(LNLN):
    """Item 14: learnable vectors start as `start_as_released` has it."""

    def __init__(
        self, config: LNLNConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__(config, architecture)
        start_as_released(self)


class Pooler(LNLN):
    """Item 18: BERT's pooler is stored and not used."""

    keeps_pooler = True


class WithoutCorrection(LNLN):
    """Table 4, "w/o DMC": H^1_d is H^1_l, whatever is missing."""

    def mix(self, proxy: Tensor, language: Tensor, completeness: Tensor) -> Tensor:
        """H^1_l."""
        return language


class WithoutLearning(LNLN):
    """Table 4, "w/o DMML": H^1_d, H^1_a and H^1_v are concatenated."""

    last = "concatenation.head"

    def __init__(
        self, config: LNLNConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__(config, architecture)
        self.concatenation = Concatenation(config)

    def answer(self, embedded: dict[str, Tensor]) -> Output:
        """The other parts are computed and not used."""
        output = super().answer(embedded)
        x = (output.corrected, embedded["a"], embedded["v"])
        return replace(output, answer=self.concatenation(*x))


class Concatenation(nn.Module):
    """Means over tokens, then Linear(3 d, 1)."""

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.head = nn.Linear(3 * config.width, 1)

    def forward(self, dominant: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        """(B, T, d) H^1_d, H^1_a and H^1_v to the answer, (B,) y-hat."""
        joined = torch.cat([dominant, audio, vision], dim=-1).mean(dim=1)
        answer: Tensor = self.head(joined).squeeze(-1)
        return answer


#: The classes of a variant's choices, by their names in `Variant`.
CHOICES: dict[str, type[LNLN]] = {
    "adversary": Adversary,
    "reconstruction": Features,
    "padding": Padding,
    "hyper": Hyper,
    "generator": Generator,
    "start": Start,
}
LEFT_OUT: dict[str, type[LNLN]] = {"dmc": WithoutCorrection, "dmml": WithoutLearning}


@cache
def network_of(variant: Variant) -> type[LNLN]:
    """The class of a variant: the paper's LNLN under the classes of its choices."""
    chosen = [CHOICES[name] for name in CHOICES if name in variant.released]
    left_out = [LEFT_OUT[name] for name in LEFT_OUT if name in variant.without]
    pooler = [Pooler] if variant.fully_released else []
    bases = (*left_out, *pooler, *chosen, LNLN)
    if len(bases) == 1:
        return LNLN
    return type("LNLN", bases, {"__doc__": f"LNLN, variant {variant}."})
