"""Reading, mending, refusing, writing and describing MMSA files."""

import collections
import gzip
import hashlib
import os
import pickle
import pickletools
import struct
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lnln.data.batch import CLS, PAD, SEP, SPLITS, DataError
from lnln.data.mmsa.reader import read_mmsa, sha256_of, write_mmsa
from lnln.data.pickles.unpickle import load_plain
from lnln.data.simulated.corpus import simulate
from lnln.evaluation.describe import describe

TENSORS = (
    "tokens",
    "token_lengths",
    "audio",
    "audio_lengths",
    "vision",
    "vision_lengths",
    "labels",
)
N, T_L, T_A, T_V = 6, 8, 12, 10
AUDIO_LENGTHS = [12, 3, 5, 1, 7, 9]
VISION_LENGTHS = [4, 10, 2, 6, 1, 8]


def frames(lengths, size, width, seed=0):
    """Front-aligned random frames with zeros behind the lengths."""
    values = np.random.default_rng(seed).normal(size=(len(lengths), size, width))
    values[np.arange(size)[None] >= np.asarray(lengths)[:, None]] = 0
    return values.astype(np.float32)


def padded_left(values, lengths):
    """The same frames with the padding moved to the front."""
    moved = np.zeros_like(values)
    for i, n in enumerate(lengths):
        moved[i, values.shape[1] - n :] = values[i, :n]
    return moved


def make_split(name="train", d_a=5, d_v=20, t_l=T_L):
    """A valid split in the published layout."""
    lengths = [t_l, 2, 4, 5, 3, 6]
    text = np.zeros((N, 3, t_l), np.int64)
    for i, n in enumerate(lengths):
        text[i, 0, :n] = [CLS, *range(2000, 2000 + n - 2), SEP]
        text[i, 1, :n] = 1
    return {
        "raw_text": [f"sentence {i}" for i in range(N)],
        "id": [f"{name}$_${i}" for i in range(N)],
        "text": np.zeros((N, t_l, 4), np.float32),
        "text_bert": text,
        "audio": frames(AUDIO_LENGTHS, T_A, d_a, 1),
        "vision": frames(VISION_LENGTHS, T_V, d_v, 2),
        "audio_lengths": list(AUDIO_LENGTHS),
        "vision_lengths": list(VISION_LENGTHS),
        "annotations": ["Neutral"] * N,
        "classification_labels": np.ones(N, np.float32),
        "regression_labels": np.array([-3, -1.2, -0.5, 0, 0.5, 3], np.float32),
    }


@pytest.fixture
def make_file(tmp_path):
    """Write a small valid file; keywords replace (or, with ..., delete) train keys."""

    def write(_protocol=4, _content=None, **changes):
        content = _content or {name: make_split(name) for name in SPLITS}
        for key, value in changes.items():
            content["train"][key] = value
            if value is ...:
                del content["train"][key]
        path = tmp_path / "file.pkl"
        path.write_bytes(pickle.dumps(content, protocol=_protocol))
        return path

    return write


def same_splits(a, b):
    for name in SPLITS:
        x, y = a.splits[name], b.splits[name]
        assert (x.ids, x.raw_text) == (y.ids, y.raw_text)
        for key in TENSORS:
            one, two = getattr(x.batch, key), getattr(y.batch, key)
            assert one.dtype == two.dtype and torch.equal(one, two), (name, key)
        assert x.modality_labels.keys() == y.modality_labels.keys()
        for key, value in x.modality_labels.items():
            assert torch.equal(value, y.modality_labels[key])
    return True


# ---- files as published


@pytest.mark.filterwarnings("error")
def test_published_layout(make_file):
    path = make_file()
    data = read_mmsa(path)
    split = make_split()
    assert (data.name, data.scheme, data.source) == ("mosi", "mosi", str(path))
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert data.mended == ()
    batch = data.train.batch
    assert np.array_equal(batch.tokens.numpy(), split["text_bert"][:, 0])
    assert batch.token_lengths.tolist() == [8, 2, 4, 5, 3, 6]
    assert np.array_equal(batch.audio.numpy(), split["audio"])
    assert np.array_equal(batch.vision.numpy(), split["vision"])
    assert batch.audio_lengths.tolist() == AUDIO_LENGTHS
    assert batch.vision_lengths.tolist() == VISION_LENGTHS
    assert np.array_equal(batch.labels.numpy(), split["regression_labels"])
    assert batch.labels.dtype == batch.audio.dtype == torch.float32
    assert batch.tokens.dtype == batch.audio_lengths.dtype == torch.int64
    assert data.test.ids[1] == "test$_$1"
    assert data.valid.raw_text[2] == "sentence 2"
    batch.audio.add_(1)  # not a view of the read-only file


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol(make_file, protocol):
    assert same_splits(read_mmsa(make_file()), read_mmsa(make_file(protocol)))


def test_sims(make_file):
    content = {s: make_split(s, 33, 709, 39) for s in SPLITS}
    for split in content.values():
        split["regression_labels"] = np.array([-1, -0.8, -0.2, 0, 0.2, 1])
        for i, key in enumerate("TAV"):
            split[f"regression_labels_{key}"] = [0.2 * i] * N
    data = read_mmsa(make_file(_content=content))
    assert (data.name, data.scheme) == ("sims", "sims")
    labels = data.train.modality_labels
    assert list(labels) == ["l", "a", "v"]
    assert labels["a"].dtype == torch.float32
    assert labels["v"][0] == pytest.approx(0.4)
    assert read_mmsa(make_file(_content=content), scheme="mosi").scheme == "mosi"
    for split in content.values():
        for key in "TAV":
            del split[f"regression_labels_{key}"]
    data = read_mmsa(make_file(_content=content), name="mine")
    assert (data.name, data.scheme, data.train.modality_labels) == ("mine", "sims", {})


def test_names(make_file):
    content = {s: make_split(s, 74, 35) for s in SPLITS}
    assert read_mmsa(make_file(_content=content)).name == "mosei"
    content = {s: make_split(s, 7, 7) for s in SPLITS}
    assert read_mmsa(make_file(_content=content)).name == "file"
    with pytest.raises(ValueError, match="scheme must be"):
        read_mmsa(make_file(), scheme="mosei")


def test_variants_of_other_scripts(make_file):
    plain, split = read_mmsa(make_file()), make_split()
    changes = (
        {"regression_labels": ..., "labels": split["regression_labels"].tolist()},
        {"regression_labels": split["regression_labels"][:, None]},
        {"regression_labels": split["regression_labels"].astype(object)},
        {"text_bert": split["text_bert"].transpose(0, 2, 1)},
        {"text_bert": split["text_bert"].astype(np.float32)},
        {"audio": split["audio"].astype(np.float64)},
        {"audio": split["audio"].astype(">f4")},
        {"audio": np.asfortranarray(split["audio"])},
        {"audio_lengths": np.array(AUDIO_LENGTHS, np.float64)},
        {"vision_lengths": [np.int64(n) for n in VISION_LENGTHS]},
        {"raw_text": np.array(split["raw_text"], object)},
        {"raw_text": np.array(split["raw_text"])},
        {"id": [s.encode() for s in split["id"]]},
        {"text": ..., "annotations": ..., "classification_labels": ...},
        {"extra": collections.OrderedDict(a=1)},
    )
    for change in changes:
        data = read_mmsa(make_file(**change))
        assert same_splits(plain, data) and not data.mended, change


def test_missing_optional_keys(make_file):
    data = read_mmsa(make_file(id=..., raw_text=...))
    assert data.train.ids[0] == "train/0"
    assert data.train.raw_text == ("",) * N


def test_aligned_file_derives_lengths(make_file):
    content = {s: make_split(s) for s in SPLITS}
    for split in content.values():
        del split["audio_lengths"], split["vision_lengths"]
    content["train"]["audio"][2] = 0
    data = read_mmsa(make_file(_content=content))
    assert data.train.batch.audio_lengths.tolist() == [12, 3, 1, 1, 7, 9]
    assert data.train.batch.vision_lengths.tolist() == VISION_LENGTHS
    assert any("audio_lengths: missing" in s for s in data.mended)
    for split in content.values():
        split["audio"] = padded_left(split["audio"], AUDIO_LENGTHS)
    with pytest.warns(UserWarning, match="audio: .*padded on the left") as caught:
        data = read_mmsa(make_file(_content=content))
    assert len(caught) == len(SPLITS)
    assert data.test.batch.audio_lengths.tolist() == AUDIO_LENGTHS


# ---- padding side and lengths


@pytest.mark.parametrize("stated", [AUDIO_LENGTHS, [1] * N], ids=["right", "spike"])
def test_left_padding_is_moved_to_the_front(make_file, stated):
    plain = read_mmsa(make_file())
    moved = padded_left(make_split()["audio"], AUDIO_LENGTHS)
    with pytest.warns(UserWarning) as caught:
        data = read_mmsa(make_file(audio=moved, audio_lengths=stated))
    assert len(caught) == 1
    assert "train audio" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert same_splits(plain, data)
    assert any("5 of 6 samples were padded on the left" in s for s in data.mended)


def test_left_padding_with_gaps_at_both_ends(make_file):
    content = {s: make_split(s) for s in SPLITS}
    for split in content.values():
        split["audio"] = padded_left(split["audio"], AUDIO_LENGTHS)
    train = content["train"]
    train["audio"][1, -1] = 0  # stands at 9, 10; the stated 3 counts from the back
    train["audio"][4, 5:7] = 0  # the stated 7 includes a gap of two at its start
    with pytest.warns(UserWarning):
        data = read_mmsa(make_file(_content=content))
    batch = data.train.batch
    assert batch.audio_lengths.tolist() == AUDIO_LENGTHS
    assert np.array_equal(batch.audio[1, :3].numpy(), train["audio"][1, 9:])
    assert np.array_equal(batch.audio[4, :7].numpy(), train["audio"][4, 5:])


@pytest.mark.parametrize("key", ["audio", "vision"])
def test_stated_lengths_that_count_the_padding(make_file, key):
    content = {s: make_split(s) for s in SPLITS}
    for split in content.values():
        split[key][4] = 0  # a sample without any frame, which has length 1
        split[f"{key}_lengths"][4] = 1
    plain = read_mmsa(make_file(_content=content))
    assert plain.mended == ()
    size = content["train"][key].shape[1]
    for split in content.values():
        split[key] = padded_left(split[key], split[f"{key}_lengths"])
        split[f"{key}_lengths"] = [size] * N
    with pytest.warns(UserWarning, match=f"{key}: 4 of 6 samples were padded"):
        data = read_mmsa(make_file(_content=content))
    assert same_splits(plain, data)
    assert any("5 of 6 stated lengths" in s for s in data.mended)


def test_left_padding_ending_in_a_gap(make_file):
    content = {s: make_split(s) for s in SPLITS}
    for split in content.values():
        split["audio"] = padded_left(split["audio"], AUDIO_LENGTHS)
    train = content["train"]
    train["audio"][2, -1] = 0
    train["audio_lengths"][2] = 11  # stands at 7 to 10: covers frames and padding
    with pytest.warns(UserWarning):
        data = read_mmsa(make_file(_content=content))
    assert data.train.batch.audio_lengths.tolist() == AUDIO_LENGTHS
    assert np.array_equal(data.train.batch.audio[2, :5], train["audio"][2, 7:])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("stated", [True, False])
def test_few_gaps_at_the_start_are_no_padding(make_file, stated):
    content = {s: make_split(s) for s in SPLITS}
    for name, split in content.items():
        split["audio"] = frames([T_A] * N, T_A, 5)
        split["audio_lengths"] = [T_A] * N
        if not stated:
            del split["audio_lengths"]
        if name == "valid":
            split["audio"][:3, :2] = 0  # faces found late, no frame is padding
    data = read_mmsa(make_file(_content=content))
    for name, split in data.splits.items():
        assert np.array_equal(split.batch.audio.numpy(), content[name]["audio"])
        assert split.batch.audio_lengths.tolist() == [T_A] * N


@pytest.mark.filterwarnings("error")
def test_gaps_in_a_front_aligned_file_are_kept(make_file):
    audio = make_split()["audio"]
    audio[0, :4] = 0  # full-length, the start is missing
    audio[1, 1] = 0
    audio[2, 4] = 0  # the last real frame
    audio[4] = 0
    audio[5, 0] = audio[5, 8] = 0
    data = read_mmsa(make_file(audio=audio))
    assert np.array_equal(data.train.batch.audio.numpy(), audio)
    assert data.train.batch.audio_lengths.tolist() == AUDIO_LENGTHS
    assert data.mended == ()


def test_length_ended_by_an_interior_zero_frame(make_file):
    audio, stated = make_split()["audio"], list(AUDIO_LENGTHS)
    audio[5, 4], stated[5] = 0, 4
    with pytest.warns(UserWarning, match="train audio: 1 of 6 stated lengths"):
        data = read_mmsa(make_file(audio=audio, audio_lengths=stated))
    assert data.train.batch.audio_lengths.tolist() == AUDIO_LENGTHS
    assert np.array_equal(data.train.batch.audio.numpy(), audio)


def test_lengths_beyond_the_array_are_clipped(make_file):
    data = read_mmsa(make_file(audio_lengths=[40, *AUDIO_LENGTHS[1:]]))
    assert data.train.batch.audio_lengths.tolist() == AUDIO_LENGTHS
    assert "train audio_lengths: 1 of 6 lengths exceed 12; clipped." in data.mended


# ---- values


def test_non_finite_frames_become_zero(make_file):
    split = make_split()
    split["audio"][0, 0, :3] = [-np.inf, np.inf, np.nan]
    vision = split["vision"].astype(np.float64)
    vision[0, 1, 0] = 1e300  # infinite in float32
    data = read_mmsa(make_file(audio=split["audio"], vision=vision))
    assert data.train.batch.audio[0, 0, :3].tolist() == [0, 0, 0]
    assert data.train.batch.vision[0, 1, 0] == 0
    assert data.mended == (
        "train audio: 2 infinite and 1 NaN values set to 0.",
        "train vision: 1 infinite and 0 NaN values set to 0.",
    )


def test_labels_slightly_out_of_range_are_clipped(make_file):
    labels = make_split()["regression_labels"]
    labels[0] = -3.33
    data = read_mmsa(make_file(regression_labels=labels))
    assert data.train.batch.labels[0] == -3
    assert "1 labels outside [-3, 3] clipped" in data.mended[0]


def test_text_notes(make_file):
    text = make_split()["text_bert"]
    text[0, 0, 0] = 7
    text[1, 0, 5] = 9
    text[2, 2, 0] = 1
    data = read_mmsa(make_file(text_bert=text))
    assert data.train.batch.tokens[1, 2:].eq(PAD).all()
    assert data.mended == (
        "train text_bert: segment ids other than 0 ignored.",
        "train text_bert: tokens behind the mask set to [PAD] in 1 of 6 samples.",
        "train text_bert: 1 of 6 samples do not begin with [CLS] (101); kept.",
    )


def edited(key, index, value):
    array = make_split()[key].copy()
    array[index] = value
    return {key: array}


def text_float(value):
    text = make_split()["text_bert"].astype(np.float64)
    text[0, 0, 1] = value
    return {"text_bert": text}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"text_bert": ...}, "'text_bert': the key is missing"),
        ({"audio": ...}, "'audio': the key is missing"),
        ({"vision": ...}, "'vision': the key is missing"),
        ({"regression_labels": ...}, "'regression_labels': the key is missing"),
        ({"regression_labels": np.array(False)}, r"has shape \(\), expected \(N,\)"),
        ({"regression_labels": []}, "the split is empty"),
        ({"regression_labels": None}, "is a NoneType"),
        ({"regression_labels": ["a"] * N}, "holds a str, expected numbers"),
        ({"regression_labels": [[1], [2]]}, "holds a list, expected numbers"),
        ({"regression_labels": [10**400] * N}, "too large"),
        ({"regression_labels": np.zeros((N, 2))}, r"has shape \(6, 2\)"),
        ({"regression_labels": [float("nan")] * N}, "the split has no labels"),
        (edited("regression_labels", 2, np.inf), "are infinite.*sample 2"),
        (edited("regression_labels", 3, 4.0), r"1 labels lie outside \[-3, 3\]"),
        ({"audio": None}, "is a NoneType, expected an array"),
        ({"audio": make_split()["audio"].tolist()}, "is a list, expected an array"),
        ({"audio": np.full((N, 3, 2), "x")}, "non-numeric"),
        ({"audio": np.full((N, 3, 2), None)}, "non-numeric"),
        ({"audio": np.zeros((N, 2, 2, 5))}, "expected three axes"),
        ({"audio": np.zeros((N - 1, 3, 5))}, "has 5 samples, but there are 6"),
        ({"audio": np.zeros((N, 0, 5))}, "sequences are empty"),
        ({"audio": np.zeros((N, 3, 6))}, "5 features, but train has 6"),
        ({"audio_lengths": [-3, *AUDIO_LENGTHS[1:]]}, "1 lengths are below 0"),
        ({"vision_lengths": [1.5] * N}, "no integers"),
        ({"vision_lengths": [1]}, "has 1 entries for 6 samples"),
        ({"vision_lengths": "long"}, "is a str"),
        ({"text_bert": np.zeros((N, 3, T_L), int)}, "all zero"),
        ({"text_bert": np.zeros((N, 4, T_L), int)}, r"expected \(N, 3, T_l\)"),
        (edited("text_bert", (0, 0, 1), -1), "below 0 or from 2"),
        (edited("text_bert", (0, 0, 1), 2**31), "below 0 or from 2"),
        (text_float(1.5), "no integers"),
        (text_float(np.nan), "no integers"),
        (edited("text_bert", (0, 1, 1), 0), "not ones followed by zeros"),
        (edited("text_bert", (0, 1, 1), 2), "other values than 0 and 1"),
        ({"raw_text": ["a"]}, "has 1 entries for 6 samples"),
        ({"raw_text": [None] * N}, "holds a NoneType, expected strings"),
        ({"id": np.zeros((N, 3, 1))}, r"has shape \(6, 3, 1\)"),
        ({"id": 5}, "is a int, expected a list of strings"),
    ],
)
def test_faults_name_split_and_key(make_file, changes, match):
    path = make_file(**changes)
    with pytest.raises(DataError, match=match) as caught:
        read_mmsa(path)
    assert str(caught.value).startswith(f"{path}: split '")
    assert "; " in str(caught.value)  # the remedy


def test_missing_split(make_file):
    for content in ({"train": make_split()}, {"train": 1, "valid": 2, "test": 3}):
        with pytest.raises(DataError, match="is missing or no dict"):
            read_mmsa(make_file(_content=content))
    with pytest.raises(DataError, match="holds a list instead of a dict"):
        read_mmsa(make_file(_content=[1]))


def test_scheme_and_labels_must_fit(make_file):
    with pytest.raises(DataError, match=r"outside \[-1, 1\]"):
        read_mmsa(make_file(), scheme="sims")


# ---- files that are something else


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n <html>", "web page"),
        (gzip.compress(b"x", mtime=0), "gzip-compressed"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"hello world", "is not a pickle"),
        (b"\x00\x01\x02", "is not a pickle"),
        (b"\x80\x04\x00", "is a damaged pickle"),
        (b"\x80\x09N.", "unknown pickle protocol 9"),
        (b"\x80\x04", "ends early"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "ends early"),
    ],
)
def test_other_files(tmp_path, content, match):
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=match) as caught:
        read_mmsa(path)
    assert str(path) in str(caught.value)


def test_zip_missing_and_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(DataError, match="zip archive"):
        read_mmsa(tmp_path / "x.zip")
    with pytest.raises(DataError, match="cannot be read"):
        read_mmsa(tmp_path / "absent.pkl")
    with pytest.raises(DataError, match="cannot be read"):
        read_mmsa(tmp_path)


def test_truncated(make_file):
    path = make_file()
    whole = path.read_bytes()
    for size in (3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"ends early .*truncated"):
            read_mmsa(path)


# ---- hostile files


class Command:
    """Pickles as a call of os.system."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(6))
def test_command_is_refused_and_not_run(make_file, tmp_path, protocol):
    marker = tmp_path / "marker"
    path = make_file(protocol, raw_text=Command(marker))
    with pytest.raises(DataError, match=r"system.*nothing was run"):
        read_mmsa(path)
    assert not marker.exists()


def text_global(module, name):
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(tR."


def stack_global(module, name):
    names = b"".join(
        b"\x8c" + struct.pack("B", len(part)) + part.encode() for part in (module, name)
    )
    return b"\x80\x04" + names + b"\x93)R."


@pytest.mark.parametrize("form", [text_global, stack_global])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("numpy", "os.system"),
        ("numpy.core.multiarray", "os"),
        ("numpy._core.multiarray", "_reconstruct.__globals__"),
        ("numpy.core", "multiarray._reconstruct.__globals__"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy.f2py.crackfortran", "myeval"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("collections", "OrderedDict.fromkeys"),
        ("copyreg", "_reconstructor"),
        ("functools", "partial"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("pickle", "loads"),
    ],
)
def test_names_are_refused_by_name(tmp_path, form, module, name):
    path = tmp_path / "x.pkl"
    path.write_bytes(form(module, name))
    with pytest.raises(DataError, match="asks for") as caught:
        read_mmsa(path)
    assert f"'{module}.{name}'" in str(caught.value)


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n)R"
DTYPE = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4I00\nI01\ntR(K\x03X\x01\x00\x00\x00<"
DTYPE += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
HUGE = b"\x8a\x08" + struct.pack("<q", 2**62)


@pytest.mark.parametrize(
    ("program", "match"),
    [
        (b"r\xff\xff\xff\xff.", "damaged"),  # nothing to store at a huge memo index
        (b"Nr\xff\xff\xff\xff0N.", "holds a NoneType"),
        (b"}" + b")" + b"\x85" * 200_000 + b"K\x01s.", "dict key|damaged"),
        (b"(" * 200_000 + b"t" * 200_000 + b".", "holds a tuple"),
        (b"Pabc\n.", "PERSID"),
        (b"NQ.", "BINPERSID"),
        (b"\x82\x01.", "EXT1"),
        (b"(ios\nsystem\n.", "INST"),
        (b"cnumpy\nndarray\n)\x81.", "NEWOBJ"),
        (b"\x8f.", "EMPTY_SET"),
        (b"cnumpy\nndarray\n}b.", "damaged"),  # state for an admitted name
        (b"]}b.", "damaged"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00zipt.", "holds"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00ziptR.", "damaged"),
        (ARRAY + b"(K\x01(" + HUGE + b"t" + DTYPE + b"I00\nU\x00tb.", "damaged"),
        (ARRAY + b"(K\x01(K\x02t" + DTYPE + b"I00\nU\x04abcdtb.", "damaged"),
        (ARRAY + b"(K\x01(K\x01t" + DTYPE + b"I00\n]tb.", "damaged"),
        (ARRAY + b"(K\x01(J\xff\xff\xff\xfft" + DTYPE + b"I00\nU\x00tb.", "damaged"),
        (ARRAY + b".", "holds a Unfinished"),
        (DTYPE.replace(b"f4", b"V4") + b".", "type 'V4'"),
        (DTYPE.replace(b"NNN", b"NN)") + b".", "structured"),
        (b"0.", "damaged"),
        (b"a.", "damaged"),
        (b"\x85.", "damaged"),
    ],
)
def test_hostile_programs(tmp_path, program, match):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02" + program)
    with pytest.raises(DataError, match=match):
        read_mmsa(path)


def test_repeated_copies_are_bounded(tmp_path):
    # Each call would copy the same string once more: 2 GB from 120 kB.
    text = b"X" + struct.pack("<I", 60_000) + b"a" * 60_000 + b"q\x000"
    call = b"c_codecs\nencode\nq\x010X\x06\x00\x00\x00latin1q\x020"
    calls = b"h\x01h\x00h\x02\x86R" * 30_000
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02" + text + call + b"(" + calls + b"l.")
    with pytest.raises(DataError, match="more data than it holds"):
        read_mmsa(path)


def test_shared_references_cost_nothing(tmp_path):
    nested: list = [0.0] * 10
    for _ in range(30):
        nested = [nested] * 10
    content = {name: make_split(name) for name in SPLITS}
    content["train"]["regression_labels"] = nested
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match="holds a list, expected numbers"):
        read_mmsa(path)


# ---- NumPy and Python versions


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_both_numpy_names(make_file, core):
    plain = read_mmsa(make_file())
    path = make_file(2, regression_labels=list(make_split()["regression_labels"]))
    data = path.read_bytes()
    for old in (b"cnumpy._core.", b"cnumpy.core."):
        data = data.replace(old, b"c" + core + b".")
    path.write_bytes(data)
    names = [arg for code, arg, _ in pickletools.genops(data) if code.name == "GLOBAL"]
    assert f"{core.decode()}.multiarray scalar" in names
    assert same_splits(plain, read_mmsa(path))


def test_python_2_strings(tmp_path):
    # array([1., 2.], dtype='<f4') and a quoted string as Python 2 writes them.
    state = b"(K\x01(K\x02t" + DTYPE + b"I00\nU\x08" + struct.pack("<2f", 1, 2) + b"tb"
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02(" + ARRAY + state + b"S'it\\'s \\xe9'\nL12L\nl.")
    array, text, number = load_plain(path)
    assert array.tolist() == [1.0, 2.0] and array.dtype == np.float32
    assert text == "it's é" and number == 12


def test_large_payloads_are_read_from_the_file(tmp_path):
    array = np.arange(100_000, dtype=np.float64)
    for protocol in range(6):
        path = tmp_path / f"{protocol}.pkl"
        path.write_bytes(pickle.dumps({"a": array, "b": [array]}, protocol))
        loaded = load_plain(path)
        assert np.array_equal(loaded["a"], array) and loaded["b"][0] is loaded["a"]


# ---- writing and describing


def test_round_trip(make_file, tmp_path):
    content = {s: make_split(s, 33, 709, 39) for s in SPLITS}
    for split in content.values():
        split["regression_labels"] = np.array([-1, -0.8, -0.2, 0, 0.2, 1])
        split["regression_labels_T"] = [0.1] * N
        split["vision"][4] = 0
    content["test"]["regression_labels_A"] = [0.2] * N
    for path in (make_file(), make_file(_content=content)):
        data = read_mmsa(path)
        copy = tmp_path / "copy.pkl"
        write_mmsa(data, copy)
        again = read_mmsa(copy)
        assert same_splits(data, again)
        assert (data.name, data.scheme) == (again.name, again.scheme)
        assert again.mended == ()
        assert [p.name for p in tmp_path.glob("*copy*")] == ["copy.pkl"]


@pytest.mark.filterwarnings("error")
def test_round_trip_of_the_simulated_corpus(tmp_path):
    data = simulate("mini", train_size=300)
    write_mmsa(data, tmp_path / "x.pkl")
    again = read_mmsa(tmp_path / "x.pkl")
    assert same_splits(data, again)
    assert (again.name, again.scheme) == (data.name, data.scheme)
    assert again.mended == ()
    assert read_mmsa(tmp_path / "x.pkl", name="mine").name == "mine"


def test_written_layout(make_file, tmp_path):
    path = tmp_path / "copy.pkl"
    write_mmsa(read_mmsa(make_file()), path)
    # Only names that NumPy 1 and 2 share: numpy.ndarray and numpy.dtype.
    assert b"multiarray" not in path.read_bytes()
    split = pickle.loads(path.read_bytes())["train"]  # our own file, just written
    expected = make_split()
    del expected["text"]
    assert split.keys() == expected.keys()
    assert type(split["audio_lengths"]) is list
    assert type(split["audio_lengths"][0]) is int
    assert split["text_bert"].dtype == np.int64
    assert np.array_equal(split["text_bert"], expected["text_bert"])
    assert split["audio"].dtype == np.float32 and split["audio"].flags.writeable
    assert split["annotations"][0] == "Negative"
    assert split["classification_labels"].tolist() == [0, 0, 0, 1, 2, 2]


def test_failed_write_keeps_the_old_file(make_file, tmp_path):
    path = make_file()
    before = path.read_bytes()
    data = read_mmsa(path)
    broken = replace(data.train, raw_text=(lambda: 0,))
    with pytest.raises((pickle.PicklingError, AttributeError)):
        write_mmsa(replace(data, splits={**data.splits, "test": broken}), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_sha256(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"a" * 1_000_000)
    assert sha256_of(path) == hashlib.sha256(b"a" * 1_000_000).hexdigest()


def test_describe(make_file):
    data = read_mmsa(make_file(audio_lengths=[40, *AUDIO_LENGTHS[1:]]))
    text = describe(data)
    lines = text.splitlines()
    assert all(len(line) <= 100 for line in lines if not line.startswith("file"))
    assert "not a published file" in text and data.sha256 in text
    assert lines[6].split() == "train 6 8 12 x 5 10 x 20 16.7%".split()
    assert lines[12].split() == "train 2 / 4 / 8 1 / 5 / 12 1 / 4 / 10".split()
    assert lines[18].split() == "train 1 0 1 3 0 0 1 | 3 1 2".split()
    assert lines[-1].startswith("- train audio_lengths: 1 of 6 lengths exceed")
    published = "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524"
    assert "MOSI unaligned_50.pkl" in describe(replace(data, sha256=published))


def test_describe_sims_classes(make_file):
    content = {s: make_split(s, 33, 709, 39) for s in SPLITS}
    for split in content.values():
        split["regression_labels"] = np.array([-0.7, -0.1, 0.1, 0.7, 0.8, 1])
    text = describe(read_mmsa(make_file(_content=content)))
    row = [line for line in text.splitlines() if line.startswith("train")][-1]
    assert row.split() == "train 1 1 1 1 2 | 2 0 4".split()
    assert max(len(line) for line in text.splitlines()[1:]) <= 100


def real_file():
    beside = Path(__file__).parents[2] / "shared" / "data" / "mosi_context.pkl"
    return Path(os.environ.get("LNLN_REAL_DATA", beside))


@pytest.mark.skipif(not real_file().exists(), reason="no real data here")
def test_real_file(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = read_mmsa(real_file())
    assert [len(data.splits[s]) for s in SPLITS] == [1010, 256, 178]
    assert data.scheme == "mosi" and data.mended == ()
    assert data.train.batch.audio.shape == (1010, 8, 73)
    write_mmsa(data, tmp_path / "copy.pkl")
    assert same_splits(data, read_mmsa(tmp_path / "copy.pkl"))
