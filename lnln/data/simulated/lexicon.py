"""The words of the simulated corpus, read from `data/corpus/`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.data.batch import Batch
from lnln.data.files import data_dir

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Lexicon:
    """The corpus's words as ids of its WordPiece vocabulary.

    Attributes:
        vocab: all tokens; a token's id is its place.
        opinion: (W,) ids of opinion words; `valence`: (W,) their valences v_w.
        negators, intensifiers: ids of modifiers.
        phrases: {"copulas" | "lead_ins": [(P_n, n) ids of phrases of n words]}.
    """

    vocab: tuple[str, ...]
    opinion: Ints
    valence: Floats
    negators: Ints
    intensifiers: Ints
    phrases: dict[str, list[Ints]]


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """The shipped lexicon (`data/corpus/`)."""
    folder = data_dir() / "corpus"
    vocab = tuple((folder / "vocab.txt").read_text("utf-8").split("\n")[:-1])
    words: dict[str, Any] = json.loads((folder / "lexicon.json").read_text("utf-8"))
    place = {token: i for i, token in enumerate(vocab)}

    def ids(tokens: list[str]) -> list[int]:
        return [place[token] for token in tokens]

    def expand(phrase: str) -> list[str]:
        if "*" not in phrase:
            return [phrase]
        return [phrase.replace("*", aspect) for aspect in words["aspects"]]

    return Lexicon(
        vocab=vocab,
        opinion=np.array(ids(list(words["opinion"]))),
        valence=np.array(list(words["opinion"].values())),
        negators=np.array(ids(words["negators"])),
        intensifiers=np.array(ids(words["intensifiers"])),
        phrases={
            kind: [
                np.array([ids(q.split()) for p in group for q in expand(p)])
                for group in words[kind]
            ]
            for kind in ("copulas", "lead_ins")
        },
    )


def transcripts(batch: Batch) -> tuple[str, ...]:
    """The text of a (possibly corrupted) batch of simulated utterances."""
    vocab = np.array(lexicon().vocab)
    rows = vocab[batch.tokens.cpu().numpy()]
    return tuple(
        " ".join(row[1 : n - 1])
        for row, n in zip(rows, batch.token_lengths.tolist(), strict=True)
    )
