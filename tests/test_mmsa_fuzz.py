"""Random damage to MMSA files ends in a Dataset or a DataError, nothing else."""

import pickle
import warnings
from fractions import Fraction

import numpy as np
import pytest
from file_kinds import KINDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers_made import bert_folder

from lnln.data.batch import MODALITIES, SPLITS, DataError, Dataset
from lnln.data.mmsa.reader import read_mmsa
from lnln.evaluation.describe import describe

N, T = 3, 4
SETTINGS = settings(
    max_examples=300,
    deadline=5_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def valid_split(labels=(-0.6, 0.0, 1.0)):
    """A small split with every kind of container the reader admits."""
    lengths = [4, 2, 3]
    mask = (np.arange(T) < np.array(lengths)[:, None]).astype(np.int64)
    text = np.stack([mask * 101, mask, mask * 0], axis=1)
    return {
        "raw_text": np.array(["a", "bé", "c"], object),
        "id": ["1", "2", "3"],
        "text_bert": text,
        "audio": np.float32(mask)[..., None].repeat(2, axis=2),
        "vision": mask[..., None].repeat(3, axis=2) / 7,
        "audio_lengths": lengths,
        "vision_lengths": np.array(lengths),
        "regression_labels": [np.float32(y) for y in labels],
        "regression_labels_T": np.array(labels),
    }


def valid_content():
    return {name: valid_split() for name in SPLITS}


WHOLE = [pickle.dumps(valid_content(), protocol) for protocol in range(6)]


def check(path, data, **options):
    """Read the bytes; a Dataset must also keep the promises of `lnln.data.batch`."""
    path.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = read_mmsa(path, **options)
    except DataError as error:
        assert str(path.parent) in str(error)
        return "refused"
    assert isinstance(dataset, Dataset)
    describe(dataset)
    for split in dataset.splits.values():
        assert len(split.ids) == len(split.raw_text) == len(split.batch)
        for m in MODALITIES:
            sequence, mask = split.batch.sequence(m), split.batch.mask(m)
            assert split.batch.lengths(m).min() >= 1
            assert split.batch.lengths(m).max() <= sequence.shape[1]
            padding = split.batch.special.pad if m == "l" else 0
            assert sequence.isfinite().all() and sequence[~mask].eq(padding).all()
    return "read"


@st.composite
def damaged_bytes(draw):
    """The bytes of a valid file with one to five random changes."""
    data = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["set", "insert", "delete", "cut", "copy"]))
        if kind == "set":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif kind == "delete":
            del data[at : at + draw(st.integers(1, 9))]
        elif kind == "cut" and draw(st.booleans()):
            del data[at:]
        elif kind == "copy":
            size = draw(st.integers(1, 40))
            target = draw(st.integers(0, len(data)))
            data[target:target] = data[at : at + size]
    return bytes(data)


SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
TYPES = ("?", "i1", "u8", ">i4", "f2", "f4", ">f8", "c8", "U3", "S2", "O", "M8[s]")
NUMBERS = st.one_of(
    st.integers(-3, 5),
    st.integers(-(2**70), 2**70),
    st.just(10**400),
    st.floats(),
    st.booleans(),
)
ITEMS = st.one_of(
    NUMBERS, st.none(), st.text(max_size=3), st.just("\udc80"), st.binary(max_size=3)
)


@st.composite
def odd_arrays(draw):
    """Arrays of any type and shape, also with NaN, infinities and extremes."""
    dtype, shape = np.dtype(draw(st.sampled_from(TYPES))), draw(SHAPES)
    shape = draw(st.sampled_from([shape, (N,), (N, T, 2), (N, T, 3), (N, 3, T)]))
    if dtype.kind == "O":
        array = np.empty(shape, object)
        array.flat = draw(st.lists(ITEMS, min_size=1, max_size=4))
        return array
    size = int(np.prod(shape)) * dtype.itemsize
    pattern = draw(st.binary(min_size=1, max_size=16))
    if draw(st.booleans()):
        pattern = np.float32([draw(st.floats(width=32))]).tobytes()
    data = (pattern * (size // len(pattern) + 1))[:size]
    return np.frombuffer(data, dtype).reshape(shape) if size else np.empty(shape, dtype)


ODD = st.one_of(
    ITEMS,
    odd_arrays(),
    st.lists(NUMBERS, min_size=N, max_size=N),
    st.lists(ITEMS, max_size=4),
    st.recursive(ITEMS, lambda inner: st.lists(inner, max_size=3), max_leaves=8),
    st.dictionaries(st.text(max_size=2), ITEMS, max_size=2),
    st.sets(st.integers(), max_size=2),
    st.sampled_from([print, np.sum, complex(1, 2), Fraction(1, 3)]),
)


@st.composite
def damaged_content(draw):
    """A valid file with one to three keys replaced, deleted or edited in place."""
    content = valid_content()
    keys = sorted(valid_split())
    for _ in range(draw(st.integers(1, 3))):
        name, key = draw(st.sampled_from(SPLITS)), draw(st.sampled_from(keys))
        kind = draw(st.sampled_from(["odd", "odd", "delete", "edit", "edit", "split"]))
        split = content.get(name)
        if kind == "split" and draw(st.integers(0, 4)) == 0:
            content[name] = draw(ODD)
        elif not isinstance(split, dict) or key not in split:
            continue
        elif kind == "odd":
            split[key] = draw(ODD)
        elif kind == "delete":
            del split[key]
        elif kind == "edit" and isinstance(split[key], np.ndarray) and split[key].size:
            numeric = split[key].dtype.kind in "iuf"
            types = ["f8", "f8", "i8", "O", "U9"] if numeric else ["O", "U9"]
            with np.errstate(invalid="ignore"):
                array = split[key].astype(draw(st.sampled_from(types)))
            at = draw(st.integers(0, array.size - 1))
            value = draw(st.sampled_from([-1, 0, 1, 2, 3, 5, np.nan, np.inf]))
            if not (array.dtype.kind == "i" and not np.isfinite(value)):
                array.flat[at] = value
            split[key] = array
    return pickle.dumps(content, draw(st.integers(0, 5)))


@st.composite
def damaged_kinds(draw):
    """A file of some other layout with one to three things in it replaced or gone."""
    # Pickled and loaded, because what is damaged must not be shared with the next.
    content = pickle.loads(pickle.dumps(KINDS[draw(st.sampled_from(sorted(KINDS)))]))
    for _ in range(draw(st.integers(1, 3))):
        inside, place = content, None
        for _ in range(draw(st.integers(1, 5))):
            if isinstance(inside, dict) and inside:
                outer, place = inside, draw(st.sampled_from(sorted(inside, key=str)))
            elif isinstance(inside, list) and inside:
                outer, place = inside, draw(st.integers(0, len(inside) - 1))
            else:
                break
            inside = outer[place]
            if isinstance(inside, tuple):
                inside = outer[place] = list(inside)
        if place is None:
            continue
        kind = draw(st.sampled_from(["odd", "delete", "rename", "retype"]))
        if kind == "odd":
            outer[place] = draw(ODD)
        elif kind == "delete":
            del outer[place]
        elif kind == "rename" and isinstance(outer, dict):
            names = [
                "text",
                "raw_text",
                "id",
                "labels",
                "label",
                "dev",
                "lnln",
                "audio",
            ]
            outer[draw(st.sampled_from(names))] = outer.pop(place)
        elif kind == "retype" and isinstance(inside, np.ndarray):
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    kind = draw(st.sampled_from(["f2", "i1", "O", "U4", "f8", "?"]))
                    outer[place] = inside.astype(kind)
                except (TypeError, ValueError):
                    outer[place] = inside.T
    return pickle.dumps(content, draw(st.integers(2, 5)))


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """An encoder's folder and a table of transcripts."""
    folder = bert_folder(tmp_path_factory.mktemp("fuzz"))
    rows = [
        f"{s}{i // 2}$_${i % 2},{text}"
        for s in SPLITS
        for i, text in enumerate("abcdef")
    ]
    (folder / "words.csv").write_text("id,text\n" + "\n".join(rows), "utf-8")
    return folder


@SETTINGS
@given(
    data=damaged_kinds(),
    encoder=st.booleans(),
    words=st.integers(0, 4),
    share=st.sampled_from([0.0, 0.0, 0.3]),
)
def test_damaged_layouts(beside, data, encoder, words, share):
    options = {"valid_share": share, "encoder": str(beside) if encoder else None}
    options["transcripts"] = str(beside / "words.csv") if words == 0 else None
    check(beside / "x.pkl", data, **options)


@settings(max_examples=100, deadline=5_000)
@given(
    table=st.one_of(
        st.binary(max_size=60),
        st.text(alphabet='id,text\n"ab', max_size=60).map(str.encode),
    )
)
def test_damaged_transcripts(beside, table):
    path = beside / "odd.csv"
    path.write_bytes(table)
    data = pickle.dumps(KINDS["glove with ids"])
    assert check(beside / "x.pkl", data, transcripts=str(path)) == "refused"


def test_undamaged_files_are_read(tmp_path):
    for data in WHOLE:
        assert check(tmp_path / "x.pkl", data) == "read"


@SETTINGS
@given(data=damaged_bytes())
def test_damaged_bytes(tmp_path, data):
    check(tmp_path / "x.pkl", data)


@SETTINGS
@given(data=damaged_content())
def test_damaged_content(tmp_path, data):
    check(tmp_path / "x.pkl", data)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_every_truncation(tmp_path, protocol):
    data = WHOLE[protocol]
    for size in range(0, len(data), 17):
        assert check(tmp_path / "x.pkl", data[:size]) == "refused"
