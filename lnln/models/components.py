"""Embedding, dominant modality correction (DMC) and reconstruction (paper, Fig. 1).

Notation: U^1_m corrupted input of modality m; H^1_l, H^1_a, H^1_v embedded
modalities; H^1_p proxy dominant feature; H^1_d corrected dominant feature; w
completeness. B batch, T tokens, d model width. `lnln.models.dmml` goes on from H^1_d.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lnln.models.config import LNLNConfig
from lnln.models.layers import TransformerEncoder, learnable, prepend


def encoder_of(config: LNLNConfig, length: int, depth: int) -> TransformerEncoder:
    """A self-attention encoder with the widths of `config`."""
    return TransformerEncoder(
        length,
        depth,
        config.width,
        config.heads,
        config.head_width,
        config.ffn_width,
        config.dropout,
    )


class ModalityEmbedding(nn.Module):
    """H^1_m = E_m([H^0_m; U^1_m W_m + b_m])_{1:T} (paper, eq. 1).

    The linear map W_m, b_m is the released code's: widths d_m must become d.

    Args:
        config: sizes of the network.
        input_width: d_m.
        length: longest sequence T_m.
    """

    def __init__(self, config: LNLNConfig, input_width: int, length: int) -> None:
        super().__init__()
        self.tokens = learnable(config.tokens, config.width)
        self.project = nn.Linear(input_width, config.width)
        self.encoder = encoder_of(
            config, config.tokens + length, config.embedding_depth
        )

    def forward(self, sequence: Tensor, mask: Tensor | None) -> Tensor:
        """Embed one modality.

        Args:
            sequence: (B, T_m, d_m) U^1_m.
            mask: (B, T_m) bool, True at real positions; None attends to padding
                too (released code, item 9).

        Returns:
            (B, T, d) H^1_m.
        """
        count = self.tokens.shape[1]
        visible = None
        if mask is not None:
            visible = torch.cat([mask.new_ones(mask.shape[0], count), mask], dim=1)
        x = prepend(self.tokens, self.project(sequence))
        embedded: Tensor = self.encoder(x, visible, read=count)
        return embedded

    def corruptions(self, frames: Tensor, kept: Tensor) -> Tensor:
        """Embed several corruptions of one sequence of frames.

        A frame is there or it is zero, so each position has two versions only, and
        much of the first layer is computed once for all corruptions.

        Args:
            frames: (T_m, d_m) of one utterance, without padding that is masked.
            kept: (C, T_m) bool, False where a frame is erased.

        Returns:
            (C, T, d), the same as `forward` on the C corrupted sequences.
        """
        count = self.tokens.shape[1]
        both = torch.stack([frames, torch.zeros_like(frames)])
        versions = prepend(self.tokens, self.project(both))
        first = torch.cat([kept.new_ones(len(kept), count), kept], dim=1)
        return self.encoder.mixed(versions, first, read=count)


class CompletenessCheck(nn.Module):
    """How complete is the language? w from a token before H^1_l (paper, DMC, eq. 5).

    H_cc is (T, d) in eq. 5; one token here, as in the released code (item 16).

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.token = learnable(1, config.width)
        self.encoder = encoder_of(config, 1 + config.tokens, config.completeness_depth)
        self.head = nn.Sequential(
            nn.Linear(config.width, config.width // 2),
            nn.LeakyReLU(0.1),
            nn.Linear(config.width // 2, 1),
        )

    def forward(self, language: Tensor) -> Tensor:
        """Estimate completeness.

        Args:
            language: (B, T, d) H^1_l.

        Returns:
            (B,) w in (0, 1); the target is 1 - r_l.
        """
        state = self.encoder(prepend(self.token, language), read=1)[:, 0]
        w: Tensor = self.head(state).squeeze(-1).sigmoid()
        return w


class ProxyGenerator(nn.Module):
    """H^1_p = E_DFG([H^0_p; H^1_a; H^1_v])_{1:T}, a stand-in for language.

    Paper, DMC: proxy dominant feature generation (DFG).

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.tokens = learnable(config.tokens, config.width)
        blocks = 3
        self.prefix = None
        if config.as_released("generator"):
            # Item 15: H^0_p is tokens 9-16; the result is read from this block.
            self.prefix = learnable(config.tokens, config.width)
            blocks = 4
        self.encoder = encoder_of(
            config, blocks * config.tokens, config.generator_depth
        )

    def forward(self, audio: Tensor, vision: Tensor) -> Tensor:
        """Generate the proxy dominant feature.

        Args:
            audio, vision: (B, T, d) H^1_a and H^1_v.

        Returns:
            (B, T, d) H^1_p.
        """
        x = prepend(self.tokens, torch.cat([audio, vision], dim=1))
        if self.prefix is not None:
            x = prepend(self.prefix, x)
        proxy: Tensor = self.encoder(x, read=self.tokens.shape[1])
        return proxy


class EffectivenessDiscriminator(nn.Module):
    """D tells proxy from language features, token by token (paper, DMC).

    In the released code it tells H^1_d of the corrupted input from H^1_l of the
    complete one (item 4).

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.classify = nn.Sequential(
            nn.Linear(config.width, config.width // 2),
            nn.LeakyReLU(0.1),
            nn.Linear(config.width // 2, 2),
        )

    def forward(self, feature: Tensor) -> Tensor:
        """(B, T, d) features to (B, T, 2) logits: class 0 language, class 1 proxy."""
        logits: Tensor = self.classify(feature)
        return logits


def correct(proxy: Tensor, language: Tensor, completeness: Tensor) -> Tensor:
    """H^1_d = (1 - w) H^1_p + w H^1_l, the corrected dominant feature (paper, eq. 8).

    Args:
        proxy, language: (B, T, d) H^1_p and H^1_l.
        completeness: (B,) w.

    Returns:
        (B, T, d) H^1_d.
    """
    w = completeness[:, None, None]
    return (1 - w) * proxy + w * language


class Reconstructor(nn.Module):
    """Estimate of U^0_m from U^1_m = E^m_rec(U^1_m) (paper; training only).

    Linear maps to width d and back surround the encoder, since d_m (5 on MOSI's
    audio) does not split into heads. Read literally, as here, the audio and vision
    reconstructors share no weight with the rest: L_rec reaches only the text encoder.

    Args:
        config: sizes of the network.
        input_width: d_m.
        length: longest sequence T_m.
    """

    def __init__(self, config: LNLNConfig, input_width: int, length: int) -> None:
        super().__init__()
        self.project = nn.Linear(input_width, config.width)
        self.encoder = encoder_of(config, length, config.reconstructor_depth)
        self.restore = nn.Linear(config.width, input_width)

    def forward(self, sequence: Tensor, mask: Tensor | None) -> Tensor:
        """Reconstruct.

        Args:
            sequence: (B, T_m, d_m) U^1_m.
            mask: (B, T_m) bool, True at real positions; None attends to padding too.

        Returns:
            (B, T_m, d_m) estimate of U^0_m; padding holds unspecified values.
        """
        restored: Tensor = self.restore(self.encoder(self.project(sequence), mask))
        return restored
