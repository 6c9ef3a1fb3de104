"""The components of LNLN (paper, Fig. 1), each usable alone.

Notation: U^1_m corrupted input of modality m; H^1_l, H^1_a, H^1_v embedded
modalities; H^1_p proxy dominant feature; H^i_d corrected dominant feature at scale i;
H^3_hyper hyper-modality; w completeness. B batch, T tokens, d model width. Padding is
masked everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lnln.config import LNLNConfig
from lnln.layers import (
    MultiHeadAttention,
    TransformerEncoder,
    TransformerLayer,
    learnable,
    prepend,
)


def _encoder(config: LNLNConfig, length: int, depth: int) -> TransformerEncoder:
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
    """H^1_m = E_m([H^0_m; U^1_m W_m + b_m])_{1:T} (paper, modality embedding).

    Args:
        config: sizes of the network.
        input_width: d_m.
        length: longest sequence T_m.
    """

    def __init__(self, config: LNLNConfig, input_width: int, length: int) -> None:
        super().__init__()
        self.tokens = learnable(config.tokens, config.width)
        self.project = nn.Linear(input_width, config.width)
        self.encoder = _encoder(config, config.tokens + length, config.embedding_depth)

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """Embed one modality.

        Args:
            sequence: (B, T_m, d_m) U^1_m.
            mask: (B, T_m) bool, True at real positions.

        Returns:
            (B, T, d) H^1_m.
        """
        count = self.tokens.shape[1]
        visible = torch.cat([mask.new_ones(len(mask), count), mask], dim=1)
        x = prepend(self.tokens, self.project(sequence))
        embedded: Tensor = self.encoder(x, visible)[:, :count]
        return embedded


class CompletenessCheck(nn.Module):
    """How complete is the language? w from a token before H^1_l (paper, DMC).

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.token = learnable(1, config.width)
        self.encoder = _encoder(config, 1 + config.tokens, config.completeness_depth)
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
        state = self.encoder(prepend(self.token, language))[:, 0]
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
        self.encoder = _encoder(config, 3 * config.tokens, config.generator_depth)

    def forward(self, audio: Tensor, vision: Tensor) -> Tensor:
        """Generate the proxy dominant feature.

        Args:
            audio, vision: (B, T, d) H^1_a and H^1_v.

        Returns:
            (B, T, d) H^1_p.
        """
        x = prepend(self.tokens, torch.cat([audio, vision], dim=1))
        proxy: Tensor = self.encoder(x)[:, : self.tokens.shape[1]]
        return proxy


class EffectivenessDiscriminator(nn.Module):
    """D tells proxy from language features, token by token (paper, DMC).

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


class DominantScales(nn.Module):
    """H^i_d = E^i_d(H^{i-1}_d): the dominant feature at further scales (paper, DMML).

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.encoder = _encoder(config, config.tokens, config.scales - 1)

    def forward(self, dominant: Tensor) -> tuple[Tensor, ...]:
        """(B, T, d) H^1_d to (H^1_d, H^2_d, H^3_d), each (B, T, d)."""
        return (dominant, *self.encoder.hidden_states(dominant))


class HyperModalityLayer(nn.Module):
    """H^i_hyper = H^{i-1}_hyper + MHA(H^i_d, H^1_a) + MHA(H^i_d, H^1_v) (DMML).

    Args:
        config: sizes of the network.
    """

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
        """Add what the dominant feature finds in audio and vision.

        Args:
            hyper: (B, T, d) H^{i-1}_hyper.
            dominant: (B, T, d) H^i_d, the query.
            audio, vision: (B, T, d) H^1_a and H^1_v, keys and values.

        Returns:
            (B, T, d) H^i_hyper.
        """
        query = self.norm_dominant(dominant)
        audio, vision = self.norm_audio(audio), self.norm_vision(vision)
        return (
            hyper
            + self.to_audio(query, audio, audio)
            + self.to_vision(query, vision, vision)
        )

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
    """Adaptive hyper-modality learning: one layer per scale (paper, DMML).

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.start = learnable(config.tokens, config.width)
        self.layers = nn.ModuleList(
            HyperModalityLayer(config) for _ in range(config.scales)
        )

    def forward(
        self, dominants: tuple[Tensor, ...], audio: Tensor, vision: Tensor
    ) -> Tensor:
        """Learn the hyper-modality feature.

        Args:
            dominants: (H^1_d, H^2_d, H^3_d), each (B, T, d).
            audio, vision: (B, T, d) H^1_a and H^1_v.

        Returns:
            (B, T, d) H^3_hyper.
        """
        hyper = self.start.expand(len(audio), -1, -1)
        for layer, dominant in zip(self.layers, dominants, strict=True):
            hyper = layer(hyper, dominant, audio, vision)
        return hyper


class FusionTransformer(nn.Module):
    """Cross-attention from H^3_d to H^3_hyper, a token before each (paper, DMML).

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        length = 1 + config.tokens
        self.query_token = learnable(1, config.width)
        self.memory_token = learnable(1, config.width)
        self.query_positions = learnable(length, config.width)
        self.memory_positions = learnable(length, config.width)
        self.layers = nn.ModuleList(
            TransformerLayer(
                config.width,
                config.heads,
                config.head_width,
                config.ffn_width,
                config.dropout,
            )
            for _ in range(config.fusion_depth)
        )

    def forward(self, dominant: Tensor, hyper: Tensor) -> Tensor:
        """Fuse: (B, T, d) H^3_d and (B, T, d) H^3_hyper to (B, 1 + T, d)."""
        x = prepend(self.query_token, dominant) + self.query_positions
        memory = prepend(self.memory_token, hyper) + self.memory_positions
        for layer in self.layers:
            x = layer(x, memory)
        return x


class Predictor(nn.Module):
    """Mean over the T fused query tokens, then Linear(d, 1) (paper, DMML).

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.head = nn.Linear(config.width, 1)

    def forward(self, fused: Tensor) -> Tensor:
        """(B, 1 + T, d) fused tokens to (B,) sentiment."""
        sentiment: Tensor = self.head(fused[:, 1:].mean(dim=1)).squeeze(-1)
        return sentiment


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
        self.encoder = _encoder(config, length, config.reconstructor_depth)
        self.restore = nn.Linear(config.width, input_width)

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """Reconstruct.

        Args:
            sequence: (B, T_m, d_m) U^1_m.
            mask: (B, T_m) bool, True at real positions.

        Returns:
            (B, T_m, d_m) estimate of U^0_m; padding holds unspecified values.
        """
        restored: Tensor = self.restore(self.encoder(self.project(sequence), mask))
        return restored
