"""The words of a file: its token ids and their vocabulary, or ids made of raw_text.

Token ids mean something to one vocabulary only. Whose ids a file holds is told by its
first and last ids, by the encoder's tokenizer and by the words themselves; where these
disagree, the file is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lnln.data.batch import DataError, SpecialTokens
from lnln.data.mmsa.fields import Bools, Field, Ints, read_array, read_strings
from lnln.data.mmsa.layouts.tuples import WORD_IDS
from lnln.data.mmsa.tokenizer import Tokenizer, find_tokenizer, load_tokenizer

#: The kinds of vocabularies whose ids are known by sight.
KINDS = {
    "BERT": SpecialTokens(),
    "RoBERTa": SpecialTokens(pad=1, unk=3, cls=0, sep=2),
    "ALBERT": SpecialTokens(pad=0, unk=1, cls=2, sep=3),
    "DeBERTa v3": SpecialTokens(pad=0, unk=3, cls=1, sep=2),
}
# Sentences compared with what the tokenizer makes of them, and the share of common ids
# below which they are of another vocabulary: the right one gives nearly all.
_COMPARED, _ALIKE = 64, 0.3
# No real set of transcripts is longer; a small file may repeat one string.
_MOST_CHARACTERS = 200_000_000
_TOKENISE = "remove the key and keep raw_text, which is then tokenised for the encoder"


@dataclass(frozen=True)
class Text:
    """The text of all splits of a file.

    Attributes:
        special: its token ids that are no words.
        splits: per split (N, T_l) token ids and (N,) lengths of at least 1.
        tokenizer: name of the encoder whose tokenizer made the ids; empty: the file
            has them.
    """

    special: SpecialTokens
    splits: list[tuple[Ints, Ints]]
    tokenizer: str = ""


def read_text(
    fields: list[Field], encoder: str | None, stated: SpecialTokens | None = None
) -> Text:
    """Read the token ids of all splits, or make them from the words.

    Args:
        fields: `text_bert` of the splits; (N, 3, T_l) or (N, T_l, 3): ids, mask,
            segment ids; or (N, T_l) ids alone.
        encoder: see `Reading`.
        stated: what the file itself says of its special ids, if it does.

    Returns:
        The text, [PAD] behind the lengths.

    Raises:
        DataError: impossible ids, no mask of ones and then zeros, ids of another
            vocabulary than the encoder's, or neither ids nor words.
        SettingsError: words, but no tokenizer for them.
    """
    vectors = [_holds_vectors(field) for field in fields]
    if not any(field and not v for field, v in zip(fields, vectors, strict=True)):
        if any(vectors):
            fields[vectors.index(True)].mend("holds vectors, which are no ids; ignored")
        return _tokenised(fields, encoder)
    parts = [_read_ids(field) for field in fields]
    tokenizer = None if encoder is None else find_tokenizer(encoder)
    special = _special(fields[0], parts, stated, tokenizer)
    for field, (tokens, mask) in zip(fields, parts, strict=True):
        _mend(field, tokens, mask, special)
    if tokenizer is not None:
        _compare_words(fields[0], *parts[0], tokenizer)
    return Text(special, [(t, m.sum(axis=1, dtype=np.int64)) for t, m in parts])


def _holds_vectors(field: Field) -> bool:
    """Whether it holds (N, T, d) or (N, d) features under the name of ids."""
    value = field.content.get(field.key)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or not value.size:
        return False
    if value.ndim == 3 and 3 in value.shape[1:]:
        return False
    with np.errstate(invalid="ignore"):
        return bool((value[:1] != np.trunc(value[:1])).any())


def _read_ids(field: Field) -> tuple[Ints, Bools]:
    """(N, T_l) ids and mask, as they are in the file."""
    value = field.value
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "iu":
        return _read_bare_ids(field, value)
    array = read_array(field)
    # Some scripts store (N, T_l, 3); at T_l = 3 the published order is taken.
    if array.shape[1] != 3 and array.shape[2] == 3:
        array = array.transpose(0, 2, 1)
    if array.shape[1] != 3:
        raise field.error(f"has shape {array.shape}, expected (N, 3, T_l)")
    _check_ids(field, array)
    if ((array[:, 1] != 0) & (array[:, 1] != 1)).any():
        raise field.error("the attention mask (row 1) holds other values than 0 and 1")
    tokens = array[:, 0].astype(np.int64)
    mask = array[:, 1].astype(bool)
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise field.error(
            "the attention mask (row 1) is not ones followed by zeros",
            "move the tokens of every sentence to the front",
        )
    if array[:, 2].any():
        field.mend("segment ids other than 0 ignored")
    return tokens, mask


def _read_bare_ids(field: Field, value: Ints) -> tuple[Ints, Bools]:
    if len(value) != field.count or not value.size:
        raise field.error(f"has shape {value.shape} for {field.count} samples")
    _check_ids(field, value)
    tokens = value.astype(np.int64)
    kind = next((s for s in KINDS.values() if s.cls == _most(tokens[:, 0])), None)
    if kind is None:
        raise field.error(
            f"has shape {value.shape}, ids without a mask, and begins with none of the "
            "known [CLS], so padding cannot be told from words",
            "store (N, 3, T_l): ids, attention mask, segment ids",
        )
    real = tokens != kind.pad
    size = tokens.shape[1] - real[:, ::-1].argmax(axis=1)
    size[~real.any(axis=1)] = 0
    field.mend("ids without a mask; a sentence ends in front of its padding")
    return tokens, np.arange(tokens.shape[1]) < size[:, None]


def _check_ids(field: Field, array: np.ndarray) -> None:
    if not np.isfinite(array).all() or (array != np.trunc(array)).any():
        raise field.error("holds token ids that are no integers")
    if (array < 0).any() or (array >= 2**31).any():
        raise field.error("holds token ids below 0 or from 2**31 on")


def _most(ids: Ints) -> int:
    values, counts = np.unique(ids, return_counts=True)
    return int(values[counts.argmax()])


def _ends(parts: list[tuple[Ints, Bools]]) -> tuple[int, int | None]:
    """The usual first id, and the usual last id of sentences that are not cut."""
    first, last = [], []
    for tokens, mask in parts:
        size = mask.sum(axis=1)
        some = np.flatnonzero(size > 0)
        first.append(tokens[some, 0])
        whole = np.flatnonzero((size > 1) & (size < tokens.shape[1]))
        last.append(tokens[whole, size[whole] - 1])
    firsts, lasts = np.concatenate(first), np.concatenate(last)
    return (_most(firsts) if len(firsts) else -1), (
        _most(lasts) if len(lasts) else None
    )


def _special(
    field: Field,
    parts: list[tuple[Ints, Bools]],
    stated: SpecialTokens | None,
    tokenizer: Tokenizer | None,
) -> SpecialTokens:
    """The vocabulary of the ids: named by file or encoder, or recognised."""
    if not any(mask.any() for _, mask in parts):
        raise field.error("no sentence has a token (attention mask all zero)")
    first, last = _ends(parts)
    seen = f"sentences begin with id {first}" + (
        "" if last is None else f" and end in {last}"
    )
    kind = _kind(first, last)
    if tokenizer is not None:
        own = tokenizer.special
        # A file whose sentences are all cut shows their beginnings only.
        if first != own.cls or (last not in (None, own.sep) and own != KINDS["BERT"]):
            known = "" if kind is None else f", as for {kind}"
            raise field.error(
                f"{seen}{known}, but the text encoder {tokenizer.name} has {own}",
                f"name the encoder that these ids were made for, or {_TOKENISE}",
            )
        return own
    if stated is not None:
        return stated
    if kind is None:
        vocabularies = "; ".join(
            f"{name}: {s.cls} and {s.sep}" for name, s in KINDS.items()
        )
        raise field.error(
            f"{seen}, as in no vocabulary known here ({vocabularies})",
            "name the text encoder that they were made for (--encoder FOLDER), or "
            + _TOKENISE,
        )
    if kind != "BERT":
        field.note(
            f"{seen}: taken for ids of a {kind} vocabulary ({KINDS[kind]}); train with "
            "such an --encoder"
        )
    return KINDS[kind]


def _kind(first: int, last: int | None) -> str | None:
    # BERT's first id says enough, and its sentences may be cut in front of [SEP].
    for name, special in KINDS.items():
        if first == special.cls and (name == "BERT" or last in (None, special.sep)):
            return name
    return None


def _mend(field: Field, tokens: Ints, mask: Bools, special: SpecialTokens) -> None:
    """Make tokens and mask what `Batch` promises, in place."""
    total, size = mask.shape
    empty = np.flatnonzero(~mask.any(axis=1))
    if len(empty) and (len(empty) == total or size < 2):
        raise field.error(
            f"{len(empty)} sentences have no token (attention mask all zero), the"
            f" first in sample {empty[0]}",
            "give each at least [CLS] [SEP]",
        )
    if len(empty):
        field.mend(f"{len(empty)} of {total} sentences without a token got [CLS] [SEP]")
        tokens[empty], mask[empty, :2] = special.pad, True
        tokens[empty, 0], tokens[empty, 1] = special.cls, special.sep
    stray = int(((tokens != special.pad) & ~mask).any(axis=1).sum())
    if stray:
        field.mend(f"tokens behind the mask set to [PAD] in {stray} of {total} samples")
    other = int((tokens[:, 0] != special.cls).sum())
    if other:
        field.mend(
            f"{other} of {total} samples do not begin with [CLS] ({special.cls}); kept"
        )
    tokens[~mask] = special.pad
    lengths = mask.sum(axis=1)
    last = tokens[np.arange(total), lengths - 1]
    open_end = int(((last != special.sep) & (lengths < size)).sum())
    if open_end:
        field.note(
            f"{open_end} of {total} samples do not end in [SEP] ({special.sep}) though "
            "there is room; their last token is never erased"
        )


def _compare_words(
    field: Field, tokens: Ints, mask: Bools, tokenizer: Tokenizer
) -> None:
    """Refuse ids that the encoder's tokenizer would not make of the same words."""
    words = read_strings(field.at("raw_text")) or ()
    some = [i for i, text in enumerate(words) if text.strip() and mask[i].sum() > 2]
    some = some[:: max(1, len(some) // _COMPARED)]
    special = tokenizer.special
    none = {special.pad, special.unk, special.cls, special.sep}
    shares = []
    made = tokenizer.encode([words[i] for i in some])
    for i, row in zip(some, made, strict=True):
        ours = set(tokens[i, mask[i]].tolist()) - none
        if ours:
            shares.append(len(ours & set(row)) / len(ours))
    if shares and np.mean(shares) < _ALIKE:
        raise field.error(
            f"the tokenizer of the text encoder {tokenizer.name} makes other ids of "
            f"raw_text: {np.mean(shares):.0%} of the file's ids in {len(shares)} "
            "sentences are among them",
            "name the encoder that these ids were made for (English, Chinese, cased?), "
            f"or {_TOKENISE}",
        )


def _tokenised(fields: list[Field], encoder: str | None) -> Text:
    words = []
    for field in fields:
        sentences = read_strings(field.at("raw_text"))
        if sentences is None or not any(text.strip() for text in sentences):
            raise _no_words(field)
        words.append(sentences)
        if sum(map(len, sentences)) > _MOST_CHARACTERS:
            raise field.at("raw_text").error(
                f"holds more than {_MOST_CHARACTERS:,} characters"
            )
    if encoder is None:
        raise fields[0].error(
            f"{_no_ids(fields[0])}; raw_text needs the tokenizer of a text encoder",
            "name the encoder (--encoder FOLDER)",
        )
    tokenizer = load_tokenizer(encoder)
    made = [tokenizer.encode(texts) for texts in words]
    special, limit = tokenizer.special, tokenizer.longest
    splits = []
    # One T_l in all splits: a model is built for the sizes of the training split.
    size = min(limit, max(len(row) for rows in made for row in rows))
    for field, rows in zip(fields, made, strict=True):
        cut = sum(len(row) > limit for row in rows)
        if cut:
            field.mend(f"{cut} of {len(rows)} sentences cut to {limit} tokens")
        rows = [
            row if len(row) <= limit else [*row[: limit - 1], special.sep]
            for row in rows
        ]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        tokens = np.full((len(rows), size), special.pad, dtype=np.int64)
        for line, row in zip(tokens, rows, strict=True):
            line[: len(row)] = row
        splits.append((tokens, lengths))
        field.mend(f"made from raw_text by the tokenizer of {encoder}")
    return Text(special, splits, encoder)


def _no_ids(field: Field) -> str:
    shape = getattr(field.content.get(field.key), "shape", None)
    return (
        "the key is missing"
        if shape is None
        else f"holds vectors {shape}, no token ids"
    )


def _no_words(field: Field) -> DataError:
    text = field.content.get("text")
    fault = f"{_no_ids(field)}, and raw_text is missing"
    if field.at(WORD_IDS):
        fault += "; the words are ids into a vocabulary that the file does not hold"
    elif isinstance(text, np.ndarray) and text.ndim == 3:
        kind = "GloVe vectors" if text.shape[2] == 300 else "vectors"
        fault += f"; text holds {kind} {text.shape}, which are no tokens"
    return field.error(
        fault,
        "give the words as a table (--transcripts FILE.csv with columns id and text) "
        "and the encoder (--encoder FOLDER), or take a file with words",
    )
