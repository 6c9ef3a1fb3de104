"""The same weights and the same numbers, with less work: what training and sweeps use.

`fast(model)` changes the classes of a model's parts in place. Four savings, which
`make bench` measures together:

- the three LayerNorms before q, k and v share one normalisation, whose scales and
  shifts move into the maps; and where only the first positions are read, keys and
  values are never formed (`FastLayer`);
- rows of similar length are encoded together, with little padding (`in_groups`);
- the complete and the corrupted version of a batch are encoded at once, and rows that
  are equal in both only once (`encode_both`);
- on a CPU, corruptions of one sequence share what does not depend on what is missing
  (`FastEmbedding.corruptions`); a GPU takes them all as rows of one batch.

Rows of a batch do not see each other in any encoder, so all of this leaves the results
as they are. `lnln.models.lnln` holds the form as written, and tests compare the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention

from lnln.data.batch import MODALITIES, Batch, valid_positions
from lnln.missing.erasing import Erased
from lnln.models.blocks.layers import (
    TransformerEncoder,
    TransformerLayer,
    attend,
    prepend,
)
from lnln.models.blocks.rows import encode_both, equal_rows, in_groups
from lnln.models.lnln import LNLN, ModalityEmbedding, Reconstructor
from lnln.models.method import Versions
from lnln.models.released import Padding

M = TypeVar("M", bound=nn.Module)

#: So few corruptions share too little for a pass per utterance: under one, 400 take the
#: shipped model 0.18 s and not 0.86 s on a CPU thread, under two 0.36 s and not 0.93 s.
#: A GPU is sooner done with all rows than it is told of a pass per utterance.
FEW = {"cpu": 2}


def fast(model: M) -> M:
    """Let a model compute the same numbers with less work.

    Args:
        model: any network; its parts are changed in place, its weights are not.

    Returns:
        The model.
    """
    for module in model.modules():
        if isinstance(module, LNLN):
            kind: Any = type(module)
            module.__class__ = _fast_lnln(kind)
        else:
            module.__class__ = _PARTS.get(type(module), type(module))
    return model


class FastLayer(TransformerLayer):
    """A layer whose LayerNorms before q, k and v share one normalisation."""

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        read: int | None = None,
    ) -> Tensor:
        """As `TransformerLayer.forward`; of self-attention, `read` first positions."""
        if memory is not None:
            return super().forward(x, memory, mask)
        if read is None:
            return self.updated(x, self._attend(self._queries_keys_values(x), mask))
        return self.updated(x[:, :read], self._attend_from_first(x, mask, read))

    def mixed(self, versions: Tensor, first: Tensor) -> Tensor:
        """The layer on C sequences whose positions come from one of two versions.

        Every position is normalised and mapped once per version. (2, S, d) and (C, S)
        bool, True where a sequence takes the first version, to (C, S, d).
        """
        choose = first[..., None]
        x = torch.where(choose, versions[0], versions[1])
        mapped = self._queries_keys_values(versions)
        chosen = torch.where(choose, mapped[0], mapped[1])
        return self.updated(x, self._attend(chosen, None))

    def _queries_keys_values(self, x: Tensor) -> Tensor:
        # One product for q, k and v: LN_q, LN_k, LN_v differ in scale and shift only.
        attention = self.attention
        maps = (
            _folded(self.norm_q, attention.to_q),
            _folded(self.norm_k, attention.to_k),
            _folded(self.norm_v, attention.to_v),
        )
        weight = torch.cat([w for w, _ in maps])
        bias = torch.cat([b for _, b in maps])
        return linear(self._normalised(x), weight, bias)

    def _attend(self, mapped: Tensor, mask: Tensor | None) -> Tensor:
        attention = self.attention
        q, k, v = (attention.split(part) for part in mapped.chunk(3, dim=-1))
        out = attend(q, k, v, mask)
        mixed: Tensor = attention.to_out(out.transpose(1, 2).flatten(2))
        return mixed

    def _attend_from_first(self, x: Tensor, mask: Tensor | None, read: int) -> Tensor:
        # q . (W_k z) = (W_k^T q) . z, and the weighted mean of W_v z is W_v times the
        # weighted mean of z. So with few queries the maps act on queries and results
        # instead of on every position; the shift of LN_k adds the same to all scores
        # of a query and drops out of the softmax.
        attention = self.attention
        z = self._normalised(x)
        q = attention.split(linear(z[:, :read], *_folded(self.norm_q, attention.to_q)))
        scale = q.shape[-1] ** -0.5
        to_k, _ = _folded(self.norm_k, attention.to_k)
        to_v, shift = _folded(self.norm_v, attention.to_v)
        to_k = to_k.unflatten(0, (attention.heads, -1))  # (heads, head_width, d)
        to_v = to_v.unflatten(0, (attention.heads, -1))
        q = torch.einsum("bhqw,hwd->bhqd", q, to_k).flatten(1, 2)[:, None]
        z = z[:, None]
        visible = None if mask is None else mask[:, None, None, :]
        mean = scaled_dot_product_attention(q, z, z, attn_mask=visible, scale=scale)
        mean = mean[:, 0].unflatten(1, (attention.heads, -1))
        out = torch.einsum("bhqd,hwd->bqhw", mean, to_v).flatten(2) + shift
        mixed: Tensor = attention.to_out(out)
        return mixed

    def _normalised(self, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], eps=self.norm_q.eps)


def _folded(norm: nn.LayerNorm, to: nn.Linear) -> tuple[Tensor, Tensor]:
    # to(norm(x)) = weight @ normalised(x) + bias
    return to.weight * norm.weight, to.weight @ norm.bias


class FastEncoder(TransformerEncoder):
    """An encoder whose last layer computes what is read, and no more."""

    def forward(
        self, x: Tensor, mask: Tensor | None = None, read: int | None = None
    ) -> Tensor:
        """As `TransformerEncoder.forward`."""
        x = x + self.positions[:, : x.shape[1]]
        for layer in self.layers[:-1]:
            x = layer(x, mask=mask)
        last: Tensor = self.layers[-1](x, mask=mask, read=read)
        return last

    def mixed(self, versions: Tensor, first: Tensor, read: int) -> Tensor:
        """Encode C sequences whose positions come from one of two versions.

        As `FastLayer.mixed`; of the result, (C, read, d) is computed.
        """
        versions = versions + self.positions[:, : versions.shape[1]]
        if len(self.layers) == 1:
            x = torch.where(first[..., None], versions[0], versions[1])
        else:
            x = cast(FastLayer, self.layers[0]).mixed(versions, first)
        for layer in self.layers[1:-1]:
            x = layer(x)
        last: Tensor = self.layers[-1](x, read=read)
        return last


class FastEmbedding(ModalityEmbedding):
    """An embedding that reads rows of similar length together."""

    def forward(self, sequence: Tensor, mask: Tensor | None) -> Tensor:
        """As `ModalityEmbedding.forward`."""
        if mask is None:
            return super().forward(sequence, None)
        return in_groups(super().forward, sequence, mask)

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
        return cast(FastEncoder, self.encoder).mixed(versions, first, read=count)


class FastReconstructor(Reconstructor):
    """A reconstructor that reads rows of similar length together."""

    def forward(self, sequence: Tensor, mask: Tensor | None) -> Tensor:
        """As `Reconstructor.forward`."""
        if mask is None:
            return super().forward(sequence, None)
        return in_groups(super().forward, sequence, mask, every_position=True)


class _FastLNLN(LNLN):
    """The network on both versions of a batch at once, and on many corruptions."""

    def versions(self, batch: Batch, complete: Batch | None) -> Versions:
        """As `LNLN.versions`, or of a variant with a second pass."""
        if complete is None:
            return super().versions(batch, None)
        same = equal_rows(batch.tokens, complete.tokens) & (not self.text_encoder.noisy)
        text, intact_text = encode_both(
            self._text,
            (batch.tokens, batch.token_lengths),
            (complete.tokens, complete.token_lengths),
            same,
            second_learns=self.second_pass,
        )
        inputs = {"l": text, "a": batch.audio, "v": batch.vision}
        targets = {"l": intact_text, "a": complete.audio, "v": complete.vision}
        embedded, intact = {}, {}
        noisy = self.training and self.config.dropout > 0
        for m in MODALITIES:
            embed, mask = self.embedding[m], self.mask(batch, m)
            if not self.second_pass:
                embedded[m] = intact[m] = embed(inputs[m], mask)
                continue
            same = equal_rows(inputs[m], targets[m]) & (not noisy)
            embedded[m], intact[m] = encode_both(
                embed, (inputs[m], mask), (targets[m], mask), same
            )
        return Versions(inputs, targets, embedded, intact)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """As `LNLN.inputs`."""
        text = self._text(batch.tokens, batch.token_lengths)
        return {"l": text, "a": batch.audio, "v": batch.vision}

    def _text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        if isinstance(self, Padding):
            # What BERT gives behind a sentence is read there (item 9).
            features: Tensor = self.text_encoder(tokens, lengths)
            return features
        return in_groups(
            lambda part, mask: self.text_encoder(part, mask.sum(dim=1)),
            tokens,
            valid_positions(lengths, tokens.shape[1]),
            every_position=True,
        )

    @torch.no_grad()
    def predict_corruptions(
        self, complete: Batch, corruptions: Sequence[Erased]
    ) -> tuple[Tensor, Tensor]:
        """As `Method.predict_corruptions`, with the work shared between corruptions."""
        lengths = complete.token_lengths.repeat(len(corruptions))
        tokens = torch.cat([erased.batch.tokens for erased in corruptions])
        mask = valid_positions(lengths, tokens.shape[1])
        text = self._text(tokens, lengths)
        padded = isinstance(self, Padding)
        embedded = {"l": self.embedding["l"](text, None if padded else mask)}
        few = len(corruptions) <= FEW.get(complete.device.type, len(corruptions))
        embed = self._row_by_row if few else self._sharing
        embedded |= {m: embed(m, complete, corruptions) for m in ("a", "v")}
        output = self.answer(embedded)
        shape = (len(corruptions), len(complete))
        answers = output.answer.view(*shape, *output.answer.shape[1:])
        return answers, output.completeness.view(shape)

    def _row_by_row(
        self, m: str, complete: Batch, corruptions: Sequence[Erased]
    ) -> Tensor:
        rows = torch.cat([erased.batch.sequence(m) for erased in corruptions])
        mask = self.mask(complete, m)
        repeated = None if mask is None else mask.repeat(len(corruptions), 1)
        embedded: Tensor = self.embedding[m](rows, repeated)
        return embedded

    def _sharing(
        self, m: str, complete: Batch, corruptions: Sequence[Erased]
    ) -> Tensor:
        kept = torch.stack([erased.kept[m] for erased in corruptions], dim=1)
        frames, sizes = complete.sequence(m), complete.lengths(m).tolist()
        if isinstance(self, Padding):
            sizes = [frames.shape[1]] * len(frames)
        embedding = cast(FastEmbedding, self.embedding[m])
        parts = [
            embedding.corruptions(frames[i, :n], kept[i, :, :n])
            for i, n in enumerate(sizes)
        ]
        return torch.stack(parts, dim=1).flatten(0, 1)


@cache
def _fast_lnln(variant: Any) -> type[LNLN]:
    if issubclass(variant, _FastLNLN):
        return variant
    return type(variant.__name__, (_FastLNLN, variant), {"__doc__": variant.__doc__})


_PARTS: dict[type[nn.Module], type[nn.Module]] = {
    TransformerLayer: FastLayer,
    TransformerEncoder: FastEncoder,
    ModalityEmbedding: FastEmbedding,
    Reconstructor: FastReconstructor,
}
