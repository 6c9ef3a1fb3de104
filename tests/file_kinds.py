"""Kinds of feature files that people have, made small: {name: what is pickled}."""

from typing import Any

import numpy as np

from lnln.data import SPLITS

N, T_A, T_V, D_A, D_V = 6, 5, 4, 3, 2
TEXTS = ["good film", "not good", "bad", "very bad film", "the film", "a good film"]
#: By the vocabularies of `tokenizers_made`, whose words follow the special tokens.
PLACES = {w: i for i, w in enumerate("good bad film not sentence very the a".split())}
BERT = {"cls": 101, "sep": 102, "pad": 0, "first": 104}
ROBERTA = {"cls": 0, "sep": 2, "pad": 1, "first": 4}
LABELS = [-2.4, -1.2, 0.0, 0.6, 1.8, 2.5]
Split = dict[str, Any]


def ids(special: dict[str, int] = BERT, shift: int = 0) -> np.ndarray:
    """(N, 3, 6) token ids, mask and segment ids of TEXTS."""
    array = np.zeros((N, 3, 6), np.int64)
    array[:, 0] = special["pad"]
    for row, text in zip(array, TEXTS, strict=True):
        words = [PLACES[word] + special["first"] + shift for word in text.split()]
        row[0, : len(words) + 2] = [special["cls"], *words, special["sep"]]
        row[1, : len(words) + 2] = 1
    return array


def frames(size: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N, size, width)).astype(np.float32)


def split(name: str, **changes: Any) -> Split:
    """A split in the layout of MMSA; keywords replace keys, or delete them (...)."""
    content = {
        "raw_text": list(TEXTS),
        "id": [f"{name}{i // 2}$_${i % 2}" for i in range(N)],
        "text_bert": ids(),
        "audio": frames(T_A, D_A, 1),
        "vision": frames(T_V, D_V, 2),
        "audio_lengths": [T_A] * N,
        "vision_lengths": [T_V] * N,
        "regression_labels": np.array(LABELS, np.float32),
    }
    content |= changes
    return {key: value for key, value in content.items() if value is not ...}


def file(names: Any = SPLITS, **changes: Any) -> dict[str, Split]:
    return {name: split(name, **changes) for name in names}


def tuples(name: str, words: Any = None, extra: bool = False) -> list[Any]:
    """A split as MISA and MAG-BERT store it."""
    rows = []
    for i, text in enumerate(TEXTS):
        spoken = text.split()
        n = len(spoken)
        said = spoken if words is None else words(spoken)
        audio, vision = frames(n, D_A, i)[0], frames(n, D_V, i)[1]
        parts = (said, vision, audio, spoken) if extra else (said, vision, audio)
        rows.append((parts, np.array([[LABELS[i]]]), f"{name}{i // 2}[{i % 2}]"))
    return rows


def glove(name: str, named: Any = None) -> Split:
    """A split as MulT and MultiBench store it."""
    content = {
        "text": frames(T_A, 300, 3),
        "audio": frames(T_A, D_A, 1),
        "vision": frames(T_A, D_V, 2),
        "labels": np.array(LABELS).reshape(N, 1, 1),
    }
    return content if named is None else {**content, "id": named}


def clip_ids(name: str) -> np.ndarray:
    """(N, 3) video, start and end, as in MOSEI's MulT file."""
    rows = [[f"{name}{i // 2}", f"{i}.0", f"{i + 1}.5"] for i in range(N)]
    return np.array(rows, dtype=object)


def variable(size: int, width: int) -> list[np.ndarray]:
    return [frames(1 + i % size, width, i)[0] for i in range(N)]


def as_objects(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def no_sep() -> np.ndarray:
    array = ids()
    array[:, 0][array[:, 0] == 102] = 110
    return array


def turned(name: str) -> Split:
    audio = frames(T_A, D_A, 1)
    audio[0, 4:] = 0
    lengths = [4] + [T_A] * (N - 1)
    return split(name, audio=audio.transpose(0, 2, 1), audio_lengths=lengths)


def records(name: str) -> list[dict[str, Any]]:
    whole = split(name, audio_lengths=..., vision_lengths=..., text_bert=...)
    return [{key: value[i] for key, value in whole.items()} for i in range(N)]


def doubled() -> dict[str, Split]:
    content = file()
    content["test"]["id"][0] = content["train"]["id"][0]
    return content


small = np.array(LABELS) / 3
WITH_GAP = np.array([np.nan, *LABELS[1:]])
KINDS: dict[str, Any] = {
    "small labels": file(regression_labels=small),
    "sims v2 widths": {
        s: split(
            s, regression_labels=small, audio=frames(T_A, 25), vision=frames(4, 177)
        )
        for s in SPLITS
    },
    "roberta ids": file(text_bert=ids(ROBERTA)),
    "other vocabulary": file(text_bert=ids(shift=20)),
    "no face": file(
        vision_lengths=[0, *[T_V] * (N - 1)],
        vision=np.concatenate([np.zeros((1, T_V, D_V)), frames(T_V, D_V)[1:]]),
    ),
    "words only": file(text_bert=...),
    "tuples": {name: tuples(name) for name in ("train", "dev", "test")},
    "tuples with ids": {
        name: tuples(name, lambda w: np.arange(len(w)))
        for name in ("train", "dev", "test")
    },
    "tuples with both": {
        name: tuples(name, lambda w: np.arange(len(w)), extra=True)
        for name in ("train", "dev", "test")
    },
    "one split of tuples": tuples("train"),
    "glove": {name: glove(name) for name in SPLITS},
    "glove with ids": {name: glove(name, clip_ids(name)) for name in SPLITS},
    "one clip": {
        "audio": frames(T_A, D_A)[0],
        "vision": frames(T_V, D_V)[0],
        "text": np.zeros((6, 768), np.float32),
        "text_bert": ids()[0],
    },
    "no validation": file(("train", "test")),
    "empty validation": {
        **file(("train", "test")),
        "valid": {k: v[:0] for k, v in split("valid").items()},
    },
    "class numbers": {
        s: split(s, regression_labels=..., labels=np.array([0, 1, 1, 0, 1, 0]))
        for s in SPLITS
    },
    "class keys": file(regression_labels=..., classification_labels=[0.0] * N),
    "class words": file(regression_labels=..., labels=["joy", "anger"] * 3),
    "one-hot emotions": {
        s: {**glove(s), "labels": np.eye(2)[np.zeros((N, 4), int)]} for s in SPLITS
    },
    # ---- ten and more that are not in the specification
    "no lengths": file(audio_lengths=..., vision_lengths=...),
    "labels (N, 1)": file(regression_labels=np.array(LABELS)[:, None]),
    "labels with NaN": file(regression_labels=WITH_GAP),
    "mosei seven labels": file(
        regression_labels=np.column_stack([LABELS, np.ones((N, 6)) / 3])
    ),
    "text_bert of vectors": file(text_bert=frames(6, 768)),
    "ids without mask": file(text_bert=ids()[:, 0]),
    "unsupervised split": {**file(), "train_mix": split("mix"), "unsup": {}},
    "dev and val": {**file(("train", "test")), "dev": split("a"), "val": split("b")},
    "trains": {"trains": split("a"), "validation": split("b"), "TEST": split("c")},
    "float16": file(audio=frames(T_A, D_A).astype(np.float16)),
    "object arrays": {
        s: split(s, audio=as_objects(variable(T_A, D_A)), audio_lengths=...)
        for s in SPLITS
    },
    "lists of arrays": file(vision=variable(T_V, D_V), vision_lengths=...),
    "one vector each": file(audio=frames(T_A, D_A, 1)[:, 0], audio_lengths=...),
    "records": {name: records(name) for name in SPLITS},
    "features first": {name: turned(name) for name in SPLITS},
    "doubled ids": doubled(),
    "one utterance": {
        **file(("train", "valid")),
        "test": {k: v[:1] for k, v in split("x").items()},
    },
    "huge values": file(audio=frames(T_A, D_A).astype(np.float64) * 1e300),
    "other width": {**file(("train", "valid")), "test": split("t", audio=frames(5, 9))},
    "numbers as ids": file(id=np.arange(N)),
    "bytes": file(id=[b"a", b"b", b"c", b"d", b"e", b"f"]),
    "no [SEP]": file(text_bert=no_sep()),
    "other names": {
        s: {
            **split(s, vision=..., audio=...),
            "visual": frames(T_V, D_V),
            "acoustic": frames(T_A, D_A),
        }
        for s in SPLITS
    },
    "sentences without words": {
        s: split(s, text_bert=np.where((np.arange(N) == 2)[:, None, None], 0, ids()))
        for s in SPLITS
    },
    "no audio": file(audio=..., audio_lengths=...),
    "not divided": split("all"),
    "ratings from 1 to 5": file(regression_labels=np.array([1.0, 2, 3, 4, 5, 4.5])),
    "whole numbers": file(regression_labels=np.array([-1, 0, 1, 1, 0, -1])),
}
