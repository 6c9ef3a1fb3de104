"""The text encoder: any BERT-style model, pretrained or small and from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import pad

from lnln.data.batch import PAD, Batch, DataError, valid_positions
from lnln.data.errors import SettingsError, require


@dataclass(frozen=True)
class EncoderConfig:
    """The text encoder: a pretrained BERT-style model, or a small one from scratch.

    Attributes:
        name: hub name or local folder of a pretrained model (`AutoModel`); None
            builds a BERT from the sizes below, untrained and without download.
        frozen: keep the encoder's weights as they are (the paper fine-tunes them).
        vocab_size, heads, ffn_width: sizes of the small BERT.
        width: of its vectors.
        depth: its layers.
        dropout: in it (a pretrained one keeps its own).
    """

    name: str | None = None
    frozen: bool = False
    vocab_size: int = 30522
    width: int = 64
    depth: int = 2
    heads: int = 4
    ffn_width: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "depth", "heads", "ffn_width"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "dropout", 0 <= self.dropout < 1, "from 0 to below 1")
        divides = self.width % self.heads == 0
        require(self, "width", divides, f"a multiple of its {self.heads} heads")


class TextEncoder(nn.Module):
    """Token ids to contextual features U_l.

    Args:
        config: which encoder.
        max_length: longest token sequence, for the small BERT's positions.
        architecture: a saved `transformers` configuration (from `architecture()`);
            builds that architecture without weights, for loading a checkpoint.
        pooler: keep a BERT's pooler, which LNLN does not read but the released
            checkpoints contain.

    Raises:
        SettingsError: a named model is neither a local folder nor reachable on the hub.
    """

    def __init__(
        self,
        config: EncoderConfig,
        max_length: int,
        architecture: dict[str, Any] | None = None,
        pooler: bool = False,
    ) -> None:
        super().__init__()
        self.frozen = config.frozen
        self._remembered: dict[bytes, Tensor] = {}
        self.bert: Any = _build(config, max_length, architecture, pooler)
        if self.frozen:
            self.bert.requires_grad_(False)

    @property
    def width(self) -> int:
        """Width of the features, 768 for BERT base."""
        return int(self.bert.config.hidden_size)

    @property
    def vocab_size(self) -> int:
        """Number of token ids it knows."""
        return int(self.bert.config.vocab_size)

    @property
    def longest(self) -> int:
        """Most tokens of a text that it has positions for."""
        config = self.bert.config
        places = int(getattr(config, "max_position_embeddings", 0)) or 1 << 31
        # RoBERTa counts positions from behind its padding id.
        offset = int(config.pad_token_id) + 1 if "roberta" in config.model_type else 0
        return places - offset

    def check(self, batch: Batch, source: str) -> None:
        """Raise DataError if token ids of `source` are of another vocabulary."""
        padding = self.bert.config.pad_token_id
        if padding is not None and padding != batch.special.pad:
            raise DataError(
                f"{source}: token ids have {batch.special}, the text encoder has "
                f"[PAD] {padding}; name the encoder that they were made for (--encoder)"
            )
        if (highest := int(batch.tokens.max())) >= self.vocab_size:
            raise DataError(
                f"{source}: token ids reach {highest}, the text encoder knows "
                f"{self.vocab_size}; name the encoder these data were tokenised for"
            )

    def architecture(self) -> dict[str, Any]:
        """The encoder's configuration as plain JSON values."""
        values: dict[str, Any] = self.bert.config.to_diff_dict()
        values["model_type"] = self.bert.config.model_type
        for machine_specific in ("_name_or_path", "torch_dtype", "dtype"):
            values.pop(machine_specific, None)
        return values

    def train(self, mode: bool = True) -> TextEncoder:
        """Switch training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.bert.eval()
        return self

    @property
    def noisy(self) -> bool:
        """Whether the same tokens may give other features next time (dropout)."""
        return any(
            module.training and module.p > 0
            for module in self.bert.modules()
            if isinstance(module, nn.Dropout)
        )

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Encode token ids.

        Args:
            tokens: (B, T_l) int64 ids; erased ones are [UNK] and attended to.
            lengths: (B,) real lengths; what lies behind is masked.

        Returns:
            (B, T_l, d_l) last hidden states; padding holds unspecified values.
        """
        if not self._remembered:
            return self._encode(tokens, lengths)
        rows = [self._remembered.get(key) for key in _keys(tokens, lengths)]
        new = [i for i, row in enumerate(rows) if row is None]
        result = self._encode(tokens[new], lengths[new]) if new else None
        fresh = iter(()) if result is None else iter(result)
        size = tokens.shape[1]
        return torch.stack(
            [
                next(fresh) if row is None else pad(row, (0, 0, 0, size - len(row)))
                for row in rows
            ]
        )

    def remember(self, tokens: Tensor, lengths: Tensor, size: int = 256) -> None:
        """Compute the features of texts once, for every later `forward`.

        Training meets each complete text again and again: as the target of L_rec and,
        half of the time, as the input. Only a frozen encoder may remember.

        Args:
            tokens, lengths: as in `forward`, any number of rows.
            size: rows computed at once.
        """
        assert self.frozen
        # In an order that depends on nothing else: a resumed run gets the same bits.
        for rows in lengths.argsort(stable=True).split(size):
            some = tokens[rows, : int(lengths[rows].max())]
            keys = _keys(some, lengths[rows])
            features = self._encode(some, lengths[rows])
            for key, states, n in zip(
                keys, features, lengths[rows].tolist(), strict=True
            ):
                self._remembered[key] = states[:n].clone()

    def _encode(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        mask = valid_positions(lengths, tokens.shape[1])
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            out = self.bert(input_ids=tokens, attention_mask=mask.long())
        states: Tensor = out.last_hidden_state
        return states


#: Published encoders of the paper, whose sizes are known without the hub.
_PUBLISHED = {
    "bert-base-uncased": {"model_type": "bert", "vocab_size": 30522},
    "bert-base-chinese": {"model_type": "bert", "vocab_size": 21128},
}


def architecture_of(name: str) -> dict[str, Any]:
    """The configuration of a pretrained encoder, without weights or a download.

    Args:
        name: a local folder, or a hub name that is published or was fetched before.

    Raises:
        SettingsError: it is neither.
    """
    from transformers import AutoConfig

    if name in _PUBLISHED:
        return dict(_PUBLISHED[name])
    try:
        found = AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"the sizes of text encoder {name!r} are not known here; name a folder "
            "that holds its config.json, or let a training fetch it first"
        ) from error
    values: dict[str, Any] = found.to_diff_dict()
    return {**values, "model_type": found.model_type}


def _keys(tokens: Tensor, lengths: Tensor) -> list[bytes]:
    pairs = zip(tokens.cpu().numpy(), lengths.tolist(), strict=True)
    return [row[:n].tobytes() for row, n in pairs]


def _build(
    config: EncoderConfig,
    max_length: int,
    architecture: dict[str, Any] | None,
    pooler: bool,
) -> nn.Module:
    # Imported late: transformers takes seconds to load and only models need it.
    from transformers import AutoConfig, AutoModel, BertConfig, BertModel

    if architecture is not None:
        values = dict(architecture)
        bert_config: Any = AutoConfig.for_model(values.pop("model_type"), **values)
        if bert_config.model_type == "bert":
            return BertModel(bert_config, add_pooling_layer=pooler)
        model: nn.Module = AutoModel.from_config(bert_config)
        return model
    if config.name is None:
        bert = BertModel(
            BertConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.width,
                num_hidden_layers=config.depth,
                num_attention_heads=config.heads,
                intermediate_size=config.ffn_width,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
                max_position_embeddings=max_length,
                pad_token_id=PAD,
            ),
            add_pooling_layer=pooler,
        )
        # Few utterances teach words sooner than places, so places start small.
        with torch.no_grad():
            bert.embeddings.position_embeddings.weight.mul_(0.05)
        return bert
    return _pretrained(config.name, pooler)


def _pretrained(name: str, pooler: bool) -> nn.Module:
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    local = Path(name).is_dir()
    # Pickled weights of a folder from outside are never executed: safetensors only.
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": local}
    try:
        bert_config = AutoConfig.from_pretrained(name, local_files_only=local)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"text encoder {name!r} is neither a model folder nor to be had from the "
            "hub; name a folder that holds config.json and model.safetensors"
        ) from error
    if bert_config.model_type == "bert":
        # The pooler gets no gradient; without it no checkpoint carries dead weight.
        options["add_pooling_layer"] = pooler
    # Its report would call the left-out pooler a surprise.
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        model: nn.Module = AutoModel.from_pretrained(name, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SettingsError(
            f"text encoder {name!r}: its weights cannot be read from a safetensors "
            f"file ({' '.join(str(error).split())[:200]}). Weights in "
            "pytorch_model.bin could run code and are not read; if you trust them, "
            'convert them once: python -c "from transformers import AutoModel; '
            f"AutoModel.from_pretrained('{name}').save_pretrained('FOLDER')\""
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    return model.float()
