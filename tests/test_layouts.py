"""Files of other projects and scripts: read, mended and said, or refused by name."""

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from file_kinds import (
    BERT,
    KINDS,
    LABELS,
    ROBERTA,
    TEXTS,
    N,
    file,
    ids,
    split,
    tuples,
    variable,
)
from tokenizers_made import bert_folder, roberta_folder

from lnln.cli import main
from lnln.data import SPLITS, Dataset, SpecialTokens
from lnln.errors import UserError
from lnln.mmsa import read_mmsa, write_mmsa
from lnln.mmsa_text import KINDS as VOCABULARIES
from lnln.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(bert_folder(tmp_path_factory.mktemp("tokenizers") / "bert"))


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(roberta_folder(tmp_path_factory.mktemp("tokenizers") / "roberta"))


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Read a kind of `KINDS`, or any content; keywords as for `read_mmsa`."""

    def open_kind(content: Any, **options: Any) -> Dataset:
        path = tmp_path / "x.pkl"
        kind = KINDS[content] if isinstance(content, str) else content
        path.write_bytes(pickle.dumps(kind))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_mmsa(path, **options)

    return open_kind


def said(data: Dataset) -> str:
    return "\n".join((*data.mended, *data.notes))


# ---- scheme


@pytest.mark.parametrize("kind", ["small labels", "sims v2 widths"])
def test_the_range_of_labels_decides_the_scheme_with_its_reason(
    read: Any, kind: str
) -> None:
    data = read(kind)
    assert data.scheme == "sims" and "all labels lie in [-1, 1]" in data.notes[0]
    data = read(kind, scheme="mosi")
    assert data.scheme == "mosi" and "--scheme says so" in data.notes[0]
    assert "labels reach 2.5" in read(file()).notes[0]


def test_a_written_file_keeps_scheme_and_special_tokens(
    read: Any, tmp_path: Path
) -> None:
    special = SpecialTokens(pad=5, unk=6, cls=7, sep=8)
    made = ids({"cls": 7, "sep": 8, "pad": 5, "first": 30})
    own = {"scheme": "mosi", "special_tokens": vars(special)}
    content = file(text_bert=made, regression_labels=np.array(LABELS) / 3)
    data = read({**content, "train": {**content["train"], "lnln": own}})
    assert data.scheme == "mosi" and data.train.batch.special == special
    write_mmsa(data, tmp_path / "y.pkl")
    with open(tmp_path / "y.pkl", "rb") as written:
        assert pickle.load(written).keys() == {"train", "valid", "test"}
    again = read_mmsa(tmp_path / "y.pkl")
    assert again.scheme == "mosi" and again.train.batch.special == special
    assert torch.equal(again.train.batch.tokens, data.train.batch.tokens)
    with pytest.raises(UserError, match="no known vocabulary|no vocabulary known"):
        read(content)
    with pytest.raises(UserError, match="key 'lnln'"):
        read({**content, "train": {**content["train"], "lnln": {"scheme": "mosi"}}})


# ---- words


def test_roberta_ids_are_known_by_sight_and_erased_by_their_own_unk(read: Any) -> None:
    from lnln.missing import erase, fixed_rates, split_uniforms

    data = read("roberta ids")
    batch = data.train.batch
    assert batch.special == VOCABULARIES["RoBERTa"] and "RoBERTa" in said(data)
    assert batch.pad(9, 5, 4).tokens[0].tolist() == [0, 4, 6, 2, 1, 1, 1, 1, 1]
    part = batch.select(torch.tensor([1, 3])).to("cpu").trim()
    gone = erase(part, fixed_rates(2, 1.0), split_uniforms(part, 0)).batch
    assert gone.tokens.tolist() == [[0, 3, 3, 2, 1], [0, 3, 3, 3, 2]]


def test_the_words_corruption_ends_sentences_in_their_own_sep(read: Any) -> None:
    from lnln.corruption import CORRUPTIONS

    batch = read("roberta ids").train.batch
    heard = CORRUPTIONS["words"].damage(batch, 0.9, ("l", "a", "v"), 0).batch
    last = heard.tokens[torch.arange(N), heard.token_lengths - 1]
    assert last.eq(2).all()
    assert heard.tokens[~heard.mask("l")].eq(1).all()


def test_an_encoder_with_other_special_tokens_is_refused(
    read: Any, bert: str, roberta: str
) -> None:
    assert read("roberta ids", encoder=roberta).notes[1:] == ()
    assert read(file(), encoder=bert).train.batch.special == SpecialTokens()
    with pytest.raises(UserError, match=r"begin with id 0 .*RoBERTa.*\[CLS\] 101"):
        read("roberta ids", encoder=bert)
    with pytest.raises(UserError, match=r"begin with id 101 .*BERT.*\[CLS\] 0"):
        read(file(), encoder=roberta)


def test_ids_of_another_vocabulary_of_the_same_kind_are_refused(
    read: Any, bert: str
) -> None:
    assert read("other vocabulary").mended == ()
    with pytest.raises(UserError, match="makes other ids of raw_text: 0%"):
        read("other vocabulary", encoder=bert)


@pytest.mark.parametrize("kind", ["words only", "text_bert of vectors", "records"])
def test_words_are_tokenised_and_recorded(
    read: Any, bert: str, roberta: str, kind: str
) -> None:
    data = read(kind, encoder=bert)
    expected = torch.from_numpy(ids(BERT)[:, 0])
    assert torch.equal(data.train.batch.tokens, expected[:, :5])
    assert data.tokenizer == bert and "made from raw_text" in said(data)
    data = read(kind, encoder=roberta)
    expected = torch.from_numpy(ids(ROBERTA)[:, 0])
    assert torch.equal(data.train.batch.tokens, expected[:, :5])
    assert data.train.batch.special == VOCABULARIES["RoBERTa"]
    with pytest.raises(UserError, match="--encoder"):
        read(kind)


def test_long_sentences_are_cut_in_front_of_sep_and_all_splits_are_as_long(
    read: Any, bert: str
) -> None:
    content = file(text_bert=...)
    content["test"]["raw_text"][0] = "good " * 700
    data = read(content, encoder=bert)
    assert {s.batch.tokens.shape[1] for s in data.splits.values()} == {512}
    assert data.test.batch.tokens[0, -1] == 102
    assert "1 of 6 sentences cut to 512 tokens" in said(data)


def test_ids_without_mask_and_sentences_without_words(read: Any) -> None:
    plain = read(file()).train.batch
    data = read("ids without mask")
    assert torch.equal(data.train.batch.tokens, plain.tokens)
    assert torch.equal(data.train.batch.token_lengths, plain.token_lengths)
    data = read("sentences without words")
    assert data.train.batch.tokens[2].tolist() == [101, 102, 0, 0, 0, 0]
    assert data.train.batch.token_lengths[2] == 2
    assert "without a token got [CLS] [SEP]" in said(data)


def test_sentences_without_sep_are_noted(read: Any) -> None:
    assert "6 of 6 samples do not end in [SEP]" in said(read("no [SEP]"))


def test_an_encoder_without_tokenizer(read: Any, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert read(file(), encoder=str(folder)).mended == ()
    with pytest.raises(UserError, match="holds no tokenizer"):
        read("words only", encoder=str(folder))
    (folder / "tokenizer.json").write_text("{broken")
    with pytest.raises(UserError, match="tokenizer cannot be read"):
        read("words only", encoder=str(folder))


def test_a_tokenizer_that_knows_no_word_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As for a hub name of which only the model has been fetched.
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    monkeypatch.setattr("lnln.tokenizer._has_files", lambda name: True)
    with pytest.raises(UserError, match="it has no vocabulary"):
        load_tokenizer(str(tmp_path))


def test_a_hub_name_that_was_never_fetched_is_not_fetched_to_check_ids(
    read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    asked: list[bool] = []

    def refuse(name: str, local_files_only: bool) -> None:
        asked.append(local_files_only)
        raise OSError("not here")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", refuse)
    assert read(file(), encoder="some/model").mended == ()
    assert asked == [True]


def test_a_tokenizer_without_special_tokens_is_refused(
    read: Any, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"a": 0, "<u>": 1}, unk_token="<u>"))
    made = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<u>")
    made.save_pretrained(tmp_path / "plain")
    with pytest.raises(UserError, match="no padding and no first and no last token"):
        read("words only", encoder=str(tmp_path / "plain"))


def test_the_least_that_a_script_must_store(read: Any, bert: str) -> None:
    needed = ("raw_text", "id", "regression_labels")
    content = {
        s: {key: split(s)[key] for key in needed}
        | {"audio": variable(5, 3), "vision": variable(4, 2)}
        for s in SPLITS
    }
    data = read(content, encoder=bert)
    assert data.train.batch.audio_lengths.tolist() == [1, 2, 3, 4, 5, 1]
    assert data.train.raw_text == tuple(TEXTS)


# ---- layouts


@pytest.mark.parametrize("kind", ["tuples", "tuples with both"])
def test_tuples_of_misa_and_mag_bert(read: Any, bert: str, kind: str) -> None:
    data = read(kind, encoder=bert)
    assert "MISA / MAG-BERT" in data.layout and "'dev' read as 'valid'" in said(data)
    assert data.train.raw_text == tuple(TEXTS)
    assert data.valid.ids[3] == "dev1[1]"
    batch = data.train.batch
    assert batch.labels.tolist() == pytest.approx(LABELS)
    lengths = [len(text.split()) for text in TEXTS]
    assert batch.audio_lengths.tolist() == batch.vision_lengths.tolist() == lengths
    expected = tuples("train")[3][0]
    assert np.array_equal(batch.vision[3, :3].numpy(), expected[1])
    assert np.array_equal(batch.audio[3, :3].numpy(), expected[2])
    assert batch.tokens[3].tolist() == [101, 109, 105, 106, 102]


def test_tuples_whose_words_are_numbers_need_transcripts(
    read: Any, bert: str, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"vocabulary that the file does not hold.*MISA"
    ):
        read("tuples with ids", encoder=bert)
    table = tmp_path / "words.csv"
    rows = [
        f"{name}{i // 2}[{i % 2}],{text}"
        for name in ("train", "dev", "test")
        for i, text in enumerate(TEXTS)
    ]
    table.write_text("id,text\n" + "\n".join(rows) + "\n", "utf-8")
    data = read("tuples with ids", encoder=bert, transcripts=str(table))
    assert data.train.raw_text == tuple(TEXTS) and "words.csv" in said(data)


def test_pauses_of_the_aligner_are_no_words(read: Any, bert: str) -> None:
    content = {s: tuples(s, lambda w: ["sp", *w]) for s in SPLITS}
    data = read(content, encoder=bert)
    assert data.train.raw_text == tuple(TEXTS) and "6 pauses" in said(data)


def test_mult_files_need_the_words(read: Any, bert: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"GloVe vectors .*no tokens.*MulT"):
        read("glove")
    table = tmp_path / "label.csv"
    rows = [
        f"{s}{i // 2},{i}.0$_${i + 1}.5,0.3,{text}"
        for s in SPLITS
        for i, text in enumerate(TEXTS)
    ]
    table.write_text("video_id,clip_id,label,text\n" + "\n".join(rows), "utf-8")
    data = read("glove with ids", encoder=bert, transcripts=str(table))
    assert "MulT" in data.layout and data.train.ids[1] == "train0$_$1.0$_$2.5"
    assert data.train.raw_text == tuple(TEXTS)
    assert data.train.batch.labels.tolist() == pytest.approx(LABELS)
    content = {
        s: {**split_, "raw_text": list(TEXTS)} for s, split_ in KINDS["glove"].items()
    }
    assert read(content, encoder=bert).train.raw_text == tuple(TEXTS)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("id,words\na,b\n", "needed are id and text"),
        ("id,text\na,b\na,c\n", "two texts for 'a'"),
        ("id,text\na,b\n", "no text for 6 of 6 utterances, such as 'train0"),
        ("", "columns none"),
    ],
)
def test_faulty_transcripts(
    read: Any, bert: str, tmp_path: Path, table: str, match: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table, "utf-8")
    with pytest.raises(UserError, match=match):
        read("glove with ids", encoder=bert, transcripts=str(path))
    with pytest.raises(UserError, match="cannot be read"):
        read("glove with ids", transcripts=str(tmp_path / "absent.csv"))


def test_transcripts_for_a_file_with_words_are_refused(
    read: Any, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,text\na,b\n", "utf-8")
    with pytest.raises(UserError, match="leave out --transcripts"):
        read(file(), transcripts=str(path))


REFUSED = {
    "one clip": "features of one clip.*lnln predict",
    "one split of tuples": "one split as MISA stores it",
    "no validation": "--valid-share",
    "empty validation": "--valid-share",
    "class numbers": "whole numbers 0, 1.*predicts a score",
    "class keys": "classification_labels holds classes.*predicts a score",
    "class words": "holds a str.*predicts a score",
    "one-hot emotions": "several columns are classes.*predicts a score",
    "dev and val": "'dev' and 'val' could both be",
    "other width": "has 9 features, but train has 3",
    "no audio": "'audio': the key is missing.*--modalities",
    "not divided": "not divided into train, valid, test",
    "ratings from 1 to 5": r"outside \[-3, 3\].*rescale",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_named(read: Any, kind: str) -> None:
    with pytest.raises(UserError, match=REFUSED[kind]):
        read(kind)


SAID = {
    "no face": "1 of 6 samples have no frame; read as one missing one",
    "no lengths": "lengths run to the last non-zero frame",
    "labels with NaN": "1 of 6 utterances have no label (NaN) and are left out",
    "mosei seven labels": "first of 7 columns read as the sentiment",
    "unsupervised split": "none of the three splits: 'train_mix', 'unsup'",
    "trains": "split 'trains' read as 'train'",
    "object arrays": "one array an utterance, padded to one length",
    "lists of arrays": "one array an utterance, padded to one length",
    "one vector each": "one vector an utterance, read as a sequence of one frame",
    "features first": "(6, 3, 5) read as (N, features, frames)",
    "doubled ids": "1 ids of test also stand in train",
    "huge values": "90 infinite and 0 NaN values set to 0",
    "other names": "vision: read from visual",
    "whole numbers": "all labels are whole numbers",
}


@pytest.mark.parametrize("kind", SAID)
def test_what_is_mended_or_left_open_is_said(read: Any, kind: str) -> None:
    assert SAID[kind] in said(read(kind))


@pytest.mark.parametrize(
    "kind", ["labels (N, 1)", "float16", "one utterance", "numbers as ids", "bytes"]
)
def test_other_forms_of_the_same_are_no_matter(read: Any, kind: str) -> None:
    data = read(kind)
    assert data.mended == ()
    assert data.train.batch.labels.tolist() == pytest.approx(LABELS)


def test_mended_frames_are_the_right_ones(read: Any) -> None:
    plain = read(file()).train.batch
    content = KINDS["object arrays"]["train"]["audio"]
    batch = read("object arrays").train.batch
    assert batch.audio_lengths.tolist() == [len(x) for x in content]
    assert np.array_equal(batch.audio[3, :4].numpy(), content[3])
    batch = read("features first").train.batch
    assert torch.equal(batch.audio[1:], plain.audio[1:])
    batch = read("one vector each").train.batch
    assert batch.audio.shape == (N, 1, 3)
    assert torch.equal(batch.audio[:, 0], plain.audio[:, 0])
    batch = read("no face").train.batch
    assert batch.vision_lengths.tolist() == [1, 4, 4, 4, 4, 4]
    batch = read("labels with NaN").train.batch
    assert batch.labels.tolist() == pytest.approx(LABELS[1:])
    assert torch.equal(batch.tokens, plain.tokens[1:])


def test_lists_of_arrays_get_one_length_in_all_splits(read: Any) -> None:
    content = file(audio_lengths=...)
    for part, longest in zip(content.values(), (3, 7, 9), strict=True):
        part["audio"] = [np.ones((longest, 3), np.float32)] * N
    data = read(content)
    assert {s.batch.audio.shape[1] for s in data.splits.values()} == {9}
    assert data.train.batch.audio_lengths.tolist() == [3] * N


def test_padding_that_would_fill_the_memory_is_refused(read: Any) -> None:
    audio = [np.ones((1, 3), np.float32)] * 20_000 + [np.ones((50_000, 3), np.float32)]
    content = file(audio=audio, audio_lengths=...)
    with pytest.raises(UserError, match="GB with every utterance padded"):
        read(content)


# ---- a validation split from the training split


def test_validation_share_takes_whole_videos_whatever_their_order(read: Any) -> None:
    many = [f"video{i % 7}$_${i}" for i in range(35)]
    part = {
        "id": many,
        "text_bert": np.repeat(ids()[:1], 35, axis=0),
        "audio": np.ones((35, 2, 3)),
        "vision": np.ones((35, 2, 2)),
        "regression_labels": np.linspace(-3, 3, 35),
    }
    back = {key: value[::-1] for key, value in part.items()}
    held = []
    for train in (part, back):
        data = read({"train": train, "test": split("t")}, valid_share=0.2)
        videos = {
            name: {i.split("$")[0] for i in data.splits[name].ids} for name in SPLITS
        }
        assert not videos["train"] & videos["valid"]
        assert len(data.valid) == 10 and len(data.train) == 25
        assert "(2 of 7 videos)" in said(data)
        held.append(
            sorted(zip(data.valid.ids, data.valid.batch.labels.tolist(), strict=True))
        )
    assert held[0] == held[1]
    assert data.reading.valid_share == 0.2


def test_validation_share_by_utterance_where_ids_tell_no_videos(read: Any) -> None:
    content = file(("train", "test"), id=...)
    data = read(content, valid_share=0.3)
    assert (len(data.train), len(data.valid), len(data.test)) == (4, 2, 6)
    assert "ids tell no videos" in said(data)
    one = {**content, "train": {k: v[:1] for k, v in content["train"].items()}}
    with pytest.raises(UserError, match="too few to divide"):
        read(one, valid_share=0.3)
    with pytest.raises(UserError, match="leave out --valid-share"):
        read(file(), valid_share=0.3)
    with pytest.raises(UserError, match="between 0 and 1"):
        read(content, valid_share=1.5)
    for empty in ({}, [], None, {"regression_labels": np.zeros(0)}):
        assert len(read({**content, "valid": empty}, valid_share=0.3).valid) == 2


# ---- commands


def test_convert_writes_a_clean_file_and_its_record(
    tmp_path: Path, bert: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "mag.pkl", tmp_path / "clean.pkl"
    content = {"train": tuples("train"), "test": tuples("test")}
    source.write_bytes(pickle.dumps(content))
    options = ["--encoder", bert, "--valid-share", "0.3", "--scheme", "mosi"]
    assert main(["data", "convert", str(source), str(out), *options]) == 0
    assert "made from raw_text" in capsys.readouterr().out
    record = json.loads((tmp_path / "clean.json").read_text("utf-8"))
    assert record["input"] == "mag.pkl" and len(record["sha256"]) == 64
    assert "MISA" in record["layout"] and record["tokenizer"] == bert
    assert record["scheme"] == "mosi" and "--scheme" in record["scheme_reason"]
    assert any("taken for validation" in sentence for sentence in record["mended"])
    one = read_mmsa(source, scheme="mosi", encoder=bert, valid_share=0.3)
    two = read_mmsa(out, encoder=bert)
    assert two.mended == () and two.scheme == "mosi"
    for name in SPLITS:
        assert torch.equal(one.splits[name].batch.audio, two.splits[name].batch.audio)
        assert torch.equal(one.splits[name].batch.tokens, two.splits[name].batch.tokens)
        assert one.splits[name].ids == two.splits[name].ids
    assert main(["data", "convert", str(out), str(out)]) == 1
    assert main(["data", "convert", str(out), str(tmp_path / "x.json")]) == 1


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_run_records_how_its_file_was_read_and_evaluate_reads_it_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    folder, run, data = tmp_path / "encoder", tmp_path / "run", tmp_path / "x.pkl"
    sizes = {
        "vocab_size": 150,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 32,
    }
    if kind == "bert":
        bert_folder(folder)
        BertModel(BertConfig(**sizes)).save_pretrained(folder)
    else:
        roberta_folder(folder)
        RobertaModel(RobertaConfig(**sizes)).save_pretrained(folder)
    small = np.array(LABELS) / 3
    content = file(("train", "test"), text_bert=..., regression_labels=small)
    data.write_bytes(pickle.dumps(content))
    quick = ["--epochs", "1", "--quiet", "--device", "cpu"]
    how = ["--encoder", str(folder), "--valid-share", "0.3", "--scheme", "mosi"]
    assert main(["train", "--data", str(data), "--out", str(run), *how, *quick]) == 0
    assert "noted: scored as mosi" in capsys.readouterr().out
    told = json.loads((run / "record.json").read_text("utf-8"))["data"]
    assert told["reading"]["valid_share"] == 0.3
    assert told["reading"]["encoder"] == str(folder)
    assert told["special_tokens"]["unk"] == {"bert": 100, "roberta": 3}[kind]
    assert any("made from raw_text" in sentence for sentence in told["mended"])
    some = ["--mask-seeds", "0", "--quiet", "--device", "cpu"]
    assert main(["evaluate", str(run), *some]) == 0
    assert "mended: train text_bert: made from raw_text" in capsys.readouterr().out
    resumed = ["train", "--data", str(data), "--out", str(run), "--resume", *quick]
    assert main([*resumed, *how]) == 0
    assert main([*resumed, *how[:4], "--scheme", "sims"]) == 1
    assert "read the same file otherwise" in capsys.readouterr().err
    if kind == "roberta":
        # Its ids are of no use to the small encoder of the book, which has BERT's.
        clean = tmp_path / "clean.pkl"
        assert main(["data", "convert", str(data), str(clean), *how]) == 0
        capsys.readouterr()
        assert (
            main(["train", "--data", str(clean), "--out", str(run / "2"), *quick]) == 1
        )
        assert (
            "[PAD] 1, [UNK] 3, the text encoder has [PAD] 0" in capsys.readouterr().err
        )


def test_a_run_of_an_earlier_version_is_evaluated_as_it_was_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "x.pkl", tmp_path / "run"
    data.write_bytes(pickle.dumps(KINDS["small labels"]))
    quick = ["--epochs", "1", "--quiet", "--device", "cpu", "--scheme", "mosi"]
    assert main(["train", "--data", str(data), "--out", str(run), *quick]) == 0
    record = json.loads((run / "record.json").read_text("utf-8"))
    for key in ("reading", "notes", "special_tokens"):
        del record["data"][key]
    (run / "record.json").write_text(json.dumps(record), "utf-8")
    some = ["--mask-seeds", "0", "--quiet", "--device", "cpu"]
    assert main(["evaluate", str(run), *some]) == 0
    assert main(["evaluate", str(run), "--scheme", "sims", *some]) == 1
    assert "trained for labels of mosi" in capsys.readouterr().err


def test_compare_says_how_it_reads_and_its_cells_read_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "x.pkl"
    data.write_bytes(pickle.dumps(file(("train", "test"))))
    command = ["compare", "--data", str(data), "--out", str(tmp_path / "runs")]
    command += ["--methods", "lnln", "--seeds", "1", "--mask-seeds", "0", "--quiet"]
    assert main([*command, "--epochs", "1", "--valid-share", "0.3"]) == 0
    out = capsys.readouterr().out
    assert "mended: valid: 2 of 6 training utterances taken for validation" in out
    record = json.loads((tmp_path / "runs/lnln-1/record.json").read_text("utf-8"))
    assert record["data"]["reading"]["valid_share"] == 0.3


def test_reading_options_are_for_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--valid-share", "0.1"]) == 1
    assert "for files only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("x.json", b'{"train": []}', "is JSON text"),
        (
            "x.csv",
            b"video_id,clip_id,text,label\na,1,hello,0.2\n",
            "is a table of text",
        ),
        ("x.parquet", b"PAR1\x15\x04", "Parquet"),
        ("x.mat", b"MATLAB 5.0 MAT-file", "MATLAB"),
    ],
)
def test_other_formats_are_named(
    tmp_path: Path, name: str, content: bytes, match: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=match):
        read_mmsa(path)


def test_archives_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", audio=np.zeros(3))
    with pytest.raises(UserError, match=r"\.npz archive"):
        read_mmsa(tmp_path / "x.npz")
    for new in (True, False):
        torch.save(
            {"a": torch.zeros(3)}, tmp_path / "x.pt", _use_new_zipfile_serialization=new
        )
        with pytest.raises(UserError, match="PyTorch file"):
            read_mmsa(tmp_path / "x.pt")
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError, match="damaged zip"):
        read_mmsa(tmp_path / "x.zip")


def test_a_table_of_pandas_is_refused_by_name(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"text": TEXTS, "label": LABELS}).to_pickle(tmp_path / "x.pkl")
    with pytest.raises(UserError, match=r"asks for .*pandas|pandas"):
        read_mmsa(tmp_path / "x.pkl")
