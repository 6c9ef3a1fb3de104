"""Dominant-modality based multimodal learning (DMML): from H^1_d to the prediction.

Notation as in `lnln.models.components`; H^i_d corrected dominant feature at scale i; H^3_hyper
hyper-modality.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lnln.models.components import encoder_of
from lnln.models.config import LNLNConfig
from lnln.models.layers import MultiHeadAttention, TransformerLayer, learnable, prepend


class DominantScales(nn.Module):
    """H^i_d = E^i_d(H^{i-1}_d): the dominant feature at further scales (paper, DMML).

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.encoder = encoder_of(config, config.tokens, config.scales - 1)
        # Item 13: the released list of scales starts after the positions were added.
        self.positions_in_first = config.as_released("hyper")

    def forward(self, dominant: Tensor) -> tuple[Tensor, ...]:
        """(B, T, d) H^1_d to (H^1_d, H^2_d, H^3_d), each (B, T, d)."""
        first, *others = self.encoder.hidden_states(dominant)
        return (first if self.positions_in_first else dominant, *others)


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


class ReleasedHyperLayer(nn.Module):
    """The hyper-modality layer of the released code (items 11, 12).

    LN(H^{i-1}_hyper) + W_out (A(H^i_d, H^1_a) + A(H^i_d, H^1_v)): one query map, one
    output map, and a stream that the layer normalises in place.

    Args:
        config: sizes of the network.
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
        found = scaled_dot_product_attention(q, k_audio, v_audio)
        found = found + scaled_dot_product_attention(q, k_vision, v_vision)
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


class HyperModality(nn.Module):
    """Adaptive hyper-modality learning: one layer per scale (paper, DMML).

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.start = learnable(config.tokens, config.width)
        released = config.as_released("hyper")
        layer = ReleasedHyperLayer if released else HyperModalityLayer
        self.layers = nn.ModuleList(layer(config) for _ in range(config.scales))

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
        hyper = self.start.expand(audio.shape[0], -1, -1)
        for layer, dominant in zip(self.layers, dominants, strict=True):
            hyper = layer(hyper, dominant, audio, vision)
        return hyper


class FusionTransformer(nn.Module):
    """Cross-attention from H^3_d to H^3_hyper (paper, DMML).

    The token before each stream is the released code's (item 17).

    Both streams share the token, as in the released code. Before the queries it
    changes nothing (item 17): queries do not attend to each other, and the prediction
    reads the other T.

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        length = 1 + config.tokens
        self.token = learnable(1, config.width)
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
        x = prepend(self.token, dominant) + self.query_positions
        memory = prepend(self.token, hyper) + self.memory_positions
        for layer in self.layers:
            x = layer(x, memory)
        return x


class Predictor(nn.Module):
    """Mean over the T fused query tokens, then Linear(d, 1) (released code, item 17).

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


class Concatenation(nn.Module):
    """What stands in for DMML in the ablation: means over tokens, then Linear(3 d, 1).

    Args:
        config: sizes of the network.
    """

    def __init__(self, config: LNLNConfig) -> None:
        super().__init__()
        self.head = nn.Linear(3 * config.width, 1)

    def forward(self, dominant: Tensor, audio: Tensor, vision: Tensor) -> Tensor:
        """(B, T, d) H^1_d, H^1_a and H^1_v to (B,) sentiment."""
        joined = torch.cat([dominant, audio, vision], dim=-1).mean(dim=1)
        sentiment: Tensor = self.head(joined).squeeze(-1)
        return sentiment
