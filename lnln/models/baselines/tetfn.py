"""TETFN: text takes part whenever audio and vision talk to each other.

Wang et al., Pattern Recognition 2023. Follows MMSA's program where results rest on it:
one kernel for audio and vision, lengths ignored, no positions outside of the
text-enhanced Transformers. Unaligned frames are averaged to as many steps as the text
has, after erasing; labels are generated as in Self-MM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lnln.data.batch import Batch
from lnln.models.baselines.self_mm import LabelGenerating
from lnln.models.blocks.layers import CrossEncoder, Dropouts
from lnln.models.method import ModelConfig, Prediction


@dataclass(frozen=True)
class TETFNConfig(ModelConfig):
    """Sizes and settings of TETFN (values for MOSI).

    Attributes:
        width, attention_heads: common width and heads of the Transformers.
        kernels: of the convolutions of text, and of audio and vision.
        states: widths of the LSTMs of audio and vision.
        attention_dropouts: where text, audio, vision are the source.
        hidden_dropout, embedding_dropout, update_dropout: of the Transformers.
        heads, dropouts, rates, decays, limit, accumulate: as in `SelfMMConfig`.
    """

    method: ClassVar[str] = "tetfn"
    width: int = 50
    attention_heads: int = 5
    kernels: tuple[int, int] = (1, 1)
    states: tuple[int, int] = (16, 64)
    attention_dropouts: tuple[float, float, float] = (0.1, 0.0, 0.1)
    hidden_dropout: float = 0.0
    embedding_dropout: float = 0.0
    update_dropout: float = 0.1
    heads: tuple[int, int, int, int] = (64, 32, 32, 16)
    dropouts: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    rates: tuple[float, float, float] = (0.1, 5 / 3, 1.0)
    decays: tuple[float, float, float] = (1e-3, 1e-2, 0.0)
    limit: float = 3.0
    accumulate: int = 4


class TETFN(LabelGenerating):
    """The network.

    Args:
        config: sizes and settings.
        architecture: see `TextEncoder`; for loading checkpoints.
    """

    config: TETFNConfig
    config_type = TETFNConfig

    def __init__(
        self, config: TETFNConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__(config, architecture)
        d, (of_text, of_frames) = config.width, config.kernels
        text = self.text_encoder.width
        self.text = nn.Conv1d(text, d, of_text, bias=False)
        inputs = (config.audio_width, config.vision_width)
        self.audio, self.vision = (
            nn.ModuleDict(
                {
                    "lstm": nn.LSTM(width, h, batch_first=True),
                    "conv": nn.Conv1d(h, d, of_frames, bias=False),
                }
            )
            for width, h in zip(inputs, config.states, strict=True)
        )
        by_text, by_audio, by_vision = config.attention_dropouts
        self.text_from_audio = self._encoder(d, 2, by_audio)
        self.text_from_vision = self._encoder(d, 2, by_vision)
        self.audio_from_text = self._encoder(d, 2, by_text)
        self.vision_from_text = self._encoder(d, 2, by_text)
        # Before audio asks vision, vision has asked the text; and the other way round.
        self.vision_with_text = self._encoder(d, 1, by_text, positions=True)
        self.audio_from_vision = self._encoder(d, 2, by_text, positions=True)
        self.audio_with_text = self._encoder(d, 1, by_text, positions=True)
        self.vision_from_audio = self._encoder(d, 2, by_text, positions=True)
        self.memories = nn.ModuleDict(
            {m: self._encoder(2 * d, 2, by_text) for m in ("l", "a", "v")}
        )
        self.add_heads((6 * d, d, d, d))

    def _encoder(
        self, width: int, layers: int, dropout: float, positions: bool = False
    ) -> CrossEncoder:
        c = self.config
        dropouts = Dropouts(
            dropout, c.hidden_dropout, c.update_dropout, c.embedding_dropout
        )
        return CrossEncoder(
            width, c.attention_heads, layers, dropouts, positions=positions
        )

    def parts(self) -> tuple[list[nn.Module], list[nn.Module], list[nn.Module]]:
        """Audio, vision, all the rest."""
        taken = ("text_encoder", "audio", "vision")
        rest = [m for name, m in self.named_children() if name not in taken]
        return [self.audio], [self.vision], rest

    def trim(self, batch: Batch) -> Batch:
        """Pad to the model's lengths: padding takes part, so it must not vary."""
        c = self.config
        return batch.pad(c.text_length, c.audio_length, c.vision_length)

    def forward(self, batch: Batch) -> Prediction:
        """Predict from (corrupted) utterances, padded by `trim`."""
        text = self.text_encoder(batch.tokens, batch.token_lengths)
        x = {"l": self.text(text.transpose(1, 2)).transpose(1, 2)}
        steps = batch.tokens.shape[1]
        aligned = batch.audio.shape[1] == batch.vision.shape[1] == steps
        for m, part in (("a", self.audio), ("v", self.vision)):
            frames = batch.sequence(m)
            states, _ = part["lstm"](frames if aligned else pool(frames, steps))
            x[m] = part["conv"](states.transpose(1, 2)).transpose(1, 2)
        audio, vision = x["a"], x["v"]
        received = {
            "l": (
                self.text_from_audio(x["l"], audio),
                self.text_from_vision(x["l"], vision),
            ),
            "a": (
                self.audio_from_text(audio, x["l"]),
                self.audio_from_vision(audio, self.vision_with_text(vision, x["l"])),
            ),
            "v": (
                self.vision_from_text(vision, x["l"]),
                self.vision_from_audio(vision, self.audio_with_text(audio, x["l"])),
            ),
        }
        last = {
            m: self.memories[m](torch.cat(pair, dim=-1))[:, -1]
            for m, pair in received.items()
        }
        inputs = {m: sequence.amax(dim=1) for m, sequence in x.items()}
        inputs["f"] = torch.cat([last["l"], last["a"], last["v"]], dim=-1)
        return self.answer(inputs)


def pool(frames: Tensor, steps: int) -> Tensor:
    """Average frames to a number of steps; the last frame fills the last window.

    Args:
        frames: (B, T, d).
        steps: wanted.

    Returns:
        (B, steps, d).
    """
    size = frames.shape[1]
    window = size // steps
    if size % steps:
        window += 1
        copies = steps - size % steps
        frames = torch.cat([frames, frames[:, -1:].expand(-1, copies, -1)], dim=1)
    frames = frames[:, : window * steps]
    return frames.unflatten(1, (-1, window)).mean(dim=2)[:, :steps]
