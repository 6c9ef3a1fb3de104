"""The tokenizer of a text encoder: words to token ids, and which ids are no words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from lnln.data.batch import SpecialTokens
from lnln.data.errors import SettingsError
from lnln.data.files import data_dir

# What a folder must hold one of; without, transformers makes up an empty vocabulary.
_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
#: The name of the simulated corpus's own tokenizer, which no encoder brings.
SIMULATED = "simulated"
#: Longest sentence, in tokens: what BERT's positions reach.
LONGEST = 512


@dataclass(frozen=True)
class Tokenizer:
    """A text encoder's tokenizer.

    Attributes:
        name: folder or hub name of the encoder.
        special: its token ids that are no words.
        longest: longest sentence that the encoder takes, with [CLS] and [SEP].
        vocab_sha256: of the vocabulary, one token a line in the order of the ids: two
            tokenizers with the same one give ids the same meaning.
        encode: sentences to lists of token ids, `[CLS] ... [SEP]`, of any length.
    """

    name: str
    special: SpecialTokens
    longest: int
    vocab_sha256: str
    encode: Callable[[Sequence[str]], list[list[int]]]


def find_tokenizer(name: str) -> Tokenizer | None:
    """The tokenizer of a text encoder if it is on this machine; nothing is fetched.

    Args:
        name: folder or hub name of the encoder.

    Returns:
        The tokenizer; None for a folder without one, or a hub name not fetched yet.

    Raises:
        SettingsError: its files are damaged, or it lacks a token that LNLN needs.
    """
    if Path(name).is_dir():
        return load_tokenizer(name) if _has_files(name) else None
    loaded = _fetch(name, local=True)
    return None if isinstance(loaded, Exception) else _checked(name, loaded)


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a text encoder, from its folder or from the hub.

    Args:
        name: a local folder, a hub name (fetched if it is not there yet), or
            `SIMULATED`.

    Returns:
        The tokenizer.

    Raises:
        SettingsError: there is none, its files are damaged, or it lacks a token that
            LNLN needs.
    """
    folder = Path(name).is_dir()
    if folder and not _has_files(name):
        raise SettingsError(
            f"text encoder {name!r}: the folder holds no tokenizer; put tokenizer.json "
            "(or vocab.txt) of the model there"
        )
    loaded = _fetch(name, local=folder)
    if isinstance(loaded, Exception):
        why = " ".join(str(loaded).split())[:200]
        raise SettingsError(
            f"text encoder {name!r}: its tokenizer cannot be read ({why}); name a "
            "folder that holds tokenizer.json and config.json"
        ) from loaded
    return _checked(name, loaded)


def _has_files(name: str) -> bool:
    return any((Path(name) / file).is_file() for file in _FILES)


def _fetch(name: str, local: bool) -> Any:
    # Imported late: transformers takes seconds to load.
    from transformers import AutoTokenizer, BertTokenizer
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        loaded: Any
        if name == SIMULATED and not Path(name).is_dir():
            folder = str(data_dir() / "corpus")
            loaded = BertTokenizer.from_pretrained(folder, local_files_only=True)
        else:
            loaded = AutoTokenizer.from_pretrained(name, local_files_only=local)
        # From a configuration alone, transformers makes one that knows no word.
        if len(loaded) <= len(set(loaded.all_special_ids)):
            return LookupError("it has no vocabulary")
        return loaded
    # Outside files break its many readers in many ways; users need one kind of error.
    except Exception as error:
        return error
    finally:
        logging.set_verbosity(verbosity)


def _checked(name: str, loaded: Any) -> Tokenizer:
    cls = loaded.bos_token_id if loaded.cls_token_id is None else loaded.cls_token_id
    sep = loaded.eos_token_id if loaded.sep_token_id is None else loaded.sep_token_id
    ids = (loaded.pad_token_id, loaded.unk_token_id, cls, sep)

    def encode(texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        rows: list[list[int]] = loaded(
            list(texts), truncation=False, padding=False, verbose=False
        )["input_ids"]
        return rows

    kinds = ("padding", "unknown", "first", "last")
    lacking = [kind for kind, i in zip(kinds, ids, strict=True) if i is None]
    if lacking or len(set(ids)) < 4:
        raise SettingsError(
            f"text encoder {name!r}: its tokenizer has no {' and no '.join(lacking)} "
            "token of its own; LNLN needs [PAD], [UNK], [CLS] and [SEP], as encoders "
            "of the kind of BERT and RoBERTa have"
            if lacking
            else f"text encoder {name!r}: its tokenizer has one id for several of "
            f"[PAD], [UNK], [CLS], [SEP] ({ids}); take an encoder with four"
        )
    special = SpecialTokens(*ids)
    (row,) = encode(["a"])
    if len(row) < 2 or (row[0], row[-1]) != (special.cls, special.sep):
        raise SettingsError(
            f"text encoder {name!r}: its tokenizer does not put a sentence between "
            f"[CLS] {special.cls} and [SEP] {special.sep} (it makes {row[:6]}); take "
            "an encoder of the kind of BERT or RoBERTa"
        )
    assert all(isinstance(i, int) for i in astuple(special))
    longest = min(int(loaded.model_max_length), LONGEST)
    vocabulary = sorted(loaded.get_vocab().items(), key=lambda item: item[1])
    lines = "".join(f"{token}\n" for token, _ in vocabulary)
    digest = hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()
    return Tokenizer(name, special, longest, digest, encode)
