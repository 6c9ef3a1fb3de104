"""Small tokenizers made on the spot, of the kinds of BERT and RoBERTa."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = ("good", "bad", "film", "not", "sentence", "very", "the", "a")


def bert_folder(folder: Path, words: tuple[str, ...] = WORDS) -> Path:
    """A folder with a WordPiece vocabulary in BERT's places, and a configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    unused = [f"[unused{i}]" for i in range(99)]
    vocab = ["[PAD]", *unused, "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    vocab += ["##s", *"0123456789", *(f"##{i}" for i in range(10))]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", "utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}), "utf-8")
    return folder


def roberta_folder(folder: Path, words: tuple[str, ...] = WORDS) -> Path:
    """A folder with a vocabulary whose first ids are RoBERTa's."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocab = {word: i for i, word in enumerate([*special, *words, *"0123456789"])}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    PreTrainedTokenizerFast(
        tokenizer_object=core,
        **{"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>"},
        **{"sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    ).save_pretrained(folder)
    return folder
