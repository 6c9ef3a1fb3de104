"""From clips to a file: tables and words, errors, what is missing, the whole."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips_made import faces, tone, write_clip, write_table

from lnln.cli.main import main
from lnln.data.batch import UNK, DataError
from lnln.data.errors import MissingPackageError, SettingsError
from lnln.data.mmsa.layouts.features import fingerprint
from lnln.data.mmsa.reader import read_mmsa, write_mmsa
from lnln.data.mmsa.tokenizer import load_tokenizer
from lnln.features import (
    Clip,
    MediaPipe,
    OpenFace,
    Plain,
    Table,
    Word,
    as_sentence,
    extract,
    open_media,
    read_clips,
    read_words,
    split_text,
)
from lnln.features.vision import OPENFACE_GROUPS, OPENFACE_SETS
from lnln.features.words import between, no_transcript

SENTENCE = "I thought the movie was really wonderful"
IDS = [101, 168, 248, 243, 190, 258, 218, 269, 102]
TOKENIZER = load_tokenizer("simulated")


class Brightness:
    """An extractor as a reader writes it: dark pictures hold no face."""

    name, version = "brightness", 1
    parameters: dict[str, Any] = {"dark_below": 20}
    columns = ("mean", "spread")

    def __call__(self, frames, times):
        flat = frames.reshape(len(frames), -1).astype(float)
        values = np.stack([flat.mean(axis=1), flat.std(axis=1)], axis=1)
        return values, values[:, 0] >= self.parameters["dark_below"]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "a.wav", tone(220, 1.0))


# The table of clips.


def test_a_table_of_clips(tmp_path: Path) -> None:
    header = "clip,id,split,label,start,end,text,openface,_note"
    row = 'x/a.mp4,one,train,-1.5,0.5,2,"well, fine",a.csv,my own'
    path = write_table(tmp_path / "c.csv", row, "b.wav", "", header=header)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as Excel begins UTF-8
    one, two = read_clips(path)
    assert one == Clip(
        path=tmp_path / "x/a.mp4",
        id="one",
        split="train",
        label=-1.5,
        start=0.5,
        end=2.0,
        text="well, fine",
        openface=tmp_path / "a.csv",
        where=f"{path}, row 2",
    )
    assert (two.id, two.split, two.label, two.text) == ("b", "test", None, None)
    (cut,) = read_clips(write_table(path, "b.wav,1.5", header="clip,start"))
    assert cut.id == "b@1.5"


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        ("file", ["a.wav"], "has no column 'clip'"),
        ("clip;label", ["a.wav;1"], "separate the columns by commas"),
        ("clip,labels", ["a.wav,1"], "did you mean 'label'"),
        ("clip,text,text", ["a.wav,b,c"], "two columns 'text'"),
        ("clip,id", ["a.wav,x", "b.wav,x"], "row 3: id 'x' stands in .*row 2"),
        ("clip,split", ["a.wav,dev"], "row 2: split 'dev' is unknown; write train"),
        ("clip,label", ["a.wav,good"], "row 2: label 'good' is no number"),
        ("clip,label", ["a.wav,nan"], "label 'nan' is no number"),
        ("clip,label", ["a.wav,4"], "row 2: label 4 lies beyond 3"),
        ("clip,label", ["a.wav,1", "b.wav,"], "row 3: has no label, but 1 clips"),
        ("clip,start,end", ["a.wav,2,1"], "row 2: start 2 and end 1 enclose nothing"),
        ("clip,start", ["a.wav,-1"], "row 2: start -1 and end none"),
        ("clip,text,words", ["a.wav,hi,a.txt"], "row 2: has both text and words"),
        ("clip", ["a.wav,b"], "row 2: has 2 fields, the header 1; .* quotes"),
        ("clip,text", [",hi"], "row 2: names no clip"),
        ("clip", [], "holds no clip"),
    ],
)
def test_errors_of_the_table(
    tmp_path: Path, header: str, rows: list[str], said: str
) -> None:
    path = write_table(tmp_path / "c.csv", *rows, header=header)
    with pytest.raises(DataError, match=rf"c\.csv.*{said}"):
        read_clips(path)


def test_a_table_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    with pytest.raises(DataError, match="cannot be read .*check the name"):
        read_clips(path)
    path.write_bytes("clip\nschön.wav\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"not UTF-8 \(byte 8\); save it as UTF-8"):
        read_clips(path)


# Media.


def test_files_that_are_no_media(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(DataError, match=r"b\.wav: there is no such file"):
        open_media(tmp_path / "b.wav")
    for name, content in (("empty", b""), ("text", b"hello, I am no clip\n" * 50)):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}\.mp4: .*save it anew as mp4"):
            open_media(path)
    whole = write_clip(tmp_path / "whole.mp4", tone(220), pictures=faces(10))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cut\.mp4: cannot be opened"):
        open_media(cut)
    with wave.open(str(tmp_path / "none.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    with pytest.raises(DataError, match=r"none\.wav: has duration 0"):
        open_media(tmp_path / "none.wav")


def test_a_stretch_beyond_the_recording(tmp_path: Path, clip: Path) -> None:
    for times in ("0.5,1.5", "1.2,1.3"):
        path = write_table(
            tmp_path / "c.csv", f"a.wav,{times}", header="clip,start,end"
        )
        with pytest.raises(DataError, match=r"row 2: .*a\.wav: lasts 1\.00 s, but"):
            extract(path, encoder="simulated")
    path = write_table(tmp_path / "c.csv", "a.wav,0.5,1.05", header="clip,start,end")
    assert extract(path, encoder="simulated").dataset.test.batch.audio_lengths == 6


# Words.


def test_words_become_the_tokens_of_the_encoder() -> None:
    sentence = as_sentence(split_text(SENTENCE), TOKENIZER, 0.5)
    assert sentence is not None and sentence.ids == IDS and sentence.unclear == 0
    unknown = as_sentence(split_text("xyzzy"), TOKENIZER, 0.5)
    assert unknown is not None and unknown.ids == [101, UNK, 102]


def test_a_word_that_was_not_understood_becomes_unknown() -> None:
    words = [Word(w, confidence=0.3 if w == "movie" else 0.9) for w in SENTENCE.split()]
    sentence = as_sentence(words, TOKENIZER, 0.5)
    assert sentence is not None
    assert sentence.ids == [*IDS[:4], UNK, *IDS[5:]]
    assert sentence.text == SENTENCE.replace("movie", "[UNK]")
    assert (sentence.words, sentence.unclear) == (7, 1)
    kept = as_sentence(words, TOKENIZER, 0.2)
    assert kept is not None and kept.ids == IDS


def test_every_piece_of_an_unclear_word_is_lost_and_its_neighbours_stay() -> None:
    calls = {"ab": [7, 8], "c": [9], "d": [10]}

    def encode(texts: list[str]) -> list[list[int]]:
        return [[101, *sum((calls[w] for w in t.split()), []), 102] for t in texts]

    pieces = type(TOKENIZER)("made", TOKENIZER.special, 512, "", encode)
    words = [Word("c"), Word("xxx"), Word("ab", confidence=0.1), Word("d")]
    sentence = as_sentence(words, pieces, 0.5)
    assert sentence is not None and sentence.ids == [101, 9, UNK, UNK, UNK, 10, 102]


def test_markers_are_no_words() -> None:
    text = "[Music] the movie <sil> was <unk> ++NOISE++ [inaudible] xxx good xxxl"
    words = [w.text for w in split_text(text)]
    assert len(words) == 11
    sentence = as_sentence(split_text(text), TOKENIZER, 0.5)
    assert sentence is not None
    assert sentence.text == "the movie was [UNK] [UNK] [UNK] good xxxl"
    assert (sentence.words, sentence.unclear) == (8, 3)
    assert as_sentence(split_text("[Music] <sil>"), TOKENIZER, 0.5) is None


def test_without_a_transcript_unknown_words_stand_for_it() -> None:
    for seconds, count in ((0.5, 4), (2.0, 6), (10.0, 29)):
        assert no_transcript(seconds, TOKENIZER).ids == [101, *[UNK] * count, 102]


WHISPER = {
    "segments": [
        {
            "text": " The movie",
            "words": [
                {"word": " The", "start": 0.0, "end": 0.2, "probability": 0.9},
                {"word": " movie", "start": 0.2, "end": 0.6, "probability": 0.4},
            ],
        },
        {"text": " was good", "start": 1.0, "end": 2.0},
    ]
}
VOSK = {
    "result": [
        {"word": "the", "start": 0.0, "end": 0.2, "conf": 0.9},
        {"word": "movie", "start": 0.2, "end": 0.6, "conf": 0.4},
    ],
    "text": "the movie",
}
CTM = ";; made\na 1 0.0 0.2 the 0.9\na 1 0.2 0.4 movie 0.4\nb 1 0 1 other\n"
SRT = "1\n00:00:00,000 --> 00:00:00,600\nthe <i>movie</i>\n\n2\n"
PRAAT = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0 ! 1 comment "more"
xmax = 2.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 1.7
            mark = "ding"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2.5
        intervals: size = 0
    item [3]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        intervals: size = 5
        intervals [1]:
            xmin = 0
            xmax = 0.2
            text = "the"
        intervals [2]:
            xmin = 0.2
            xmax = 0.6
            text = "movie"
        intervals [3]:
            xmin = 0.6
            xmax = 1
            text = ""
        intervals [4]:
            xmin = 1
            xmax = 2
            text = "a ""good"" one"
        intervals [5]:
            xmin = 2
            xmax = 2.5
            text = "sp"
"""
SHORT = """File type = "ooTextFile"
"TextGrid"

0
2.5
<exists>
1
"IntervalTier"
"Ann"
0
2.5
2
0
0.6
"the movie"
0.6
2.5
"sil"
"""
VTT = "WEBVTT\n\nNOTE a b\n\n00:00.000 --> 00:00.600\n<v Ann>the movie\n"


@pytest.mark.parametrize(
    ("name", "content", "confidences"),
    [
        ("w.txt", "The movie", [None, None]),
        ("w.csv", "word,start,end,confidence\nthe,0,.2,.9\nmovie,.2,.6,.4", [0.9, 0.4]),
        ("w.csv", "word\nthe\nmovie\n", [None, None]),
        ("w.json", json.dumps(WHISPER), [0.9, 0.4]),
        ("w.json", json.dumps(VOSK), [0.9, 0.4]),
        ("w.json", json.dumps([VOSK, {"text": ""}]), [0.9, 0.4]),
        ("w.ctm", CTM, [0.9, 0.4]),
        ("w.srt", SRT, [None, None]),
        ("w.vtt", VTT, [None, None]),
        ("w.TextGrid", PRAAT, [None, None]),
        ("w.TextGrid", SHORT, [None, None]),
    ],
)
def test_words_of_every_known_form(
    tmp_path: Path, name: str, content: str, confidences: list[float | None]
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    words = read_words(path, "a")
    assert [w.text.lower() for w in words[:2]] == ["the", "movie"]
    assert [w.confidence for w in words[:2]] == confidences
    if words[0].start is not None:
        assert words[0].start == 0 and words[1].end == pytest.approx(0.6)
        # The middle of the second word lies at 0.4 or later.
        assert [w.text for w in between(words, 0.35, 0.9)] == [words[1].text]
    # Whisper's second segment has no words of its own: its time is shared.
    if "segments" in content:
        assert [(w.text, w.start) for w in words[2:]] == [("was", 1.0), ("good", 1.5)]


@pytest.mark.parametrize("form", [PRAAT, SHORT])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_pauses_in_praat_are_no_words(tmp_path: Path, form: str, encoding: str) -> None:
    path = tmp_path / "w.TextGrid"
    path.write_bytes(form.replace("movie", "<unk> ëß").encode(encoding))
    words = read_words(path)
    said = ["the", "<unk>", "ëß", *(["a", '"good"', "one"] if form is PRAAT else [])]
    assert [w.text for w in words] == said
    times = (
        [0.0, 0.2, 0.4, 0.6] if form is SHORT else [0.0, 0.2, 0.4, 1.0, 4 / 3, 5 / 3]
    )
    assert [w.start for w in words] == pytest.approx(times[: len(words)])
    sentence = as_sentence(words, TOKENIZER, 0.5)
    assert sentence is not None and (sentence.words, sentence.unclear) == (len(said), 1)
    path.write_bytes(form.encode("utf-16")[:-1])
    with pytest.raises(DataError, match=r"is not UTF-16 .*save it as UTF-8"):
        read_words(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("w.json", "{", "is no JSON"),
        ("w.json", '{"hello": 1}', "JSON of no known form; give what whisper"),
        ("w.json", '{"segments": [{"words": [{"start": 1}]}]}', "no known form"),
        ("w.csv", "words\nthe\n", "has no column 'word'"),
        ("w.csv", "word,start,end\nthe,2,1\n", "row 2: 'the' ends at 1 s, before"),
        ("w.csv", "word,confidence\nthe,87\n", "row 2: confidence 87 .*divide by 100?"),
        ("w.csv", "word,start\nthe,soon\n", "row 2: start 'soon' is no number"),
        ("w.ctm", "a 1 0.0 the\n", "row 1: has 4 fields; a CTM row is"),
        ("w.ctm", "x 1 0 1 the\ny 1 0 1 the\n", "holds 2 recordings, none called 'a'"),
        ("w.srt", "the movie\n", "has no line of times"),
        ("w.TextGrid", "the movie", "row 1: the head of a TextGrid .* the end does"),
        ("w.TextGrid", SHORT.replace("Ann", 'Ann" "Bob'), "row 9: .*head of a tier"),
        ("w.TextGrid", SHORT[:-6], "row 17: a text should .* the end does; open it in"),
        ("w.TextGrid", SHORT.replace("2\n0\n", "2\n"), 'row 14: a time .*"the movie"'),
        ("w.TextGrid", SHORT.replace('0.6\n"', '0.6.1\n"'), "end '0.6.1' is no"),
        ("w.TextGrid", PRAAT.replace('"words"', '"orts"'), "(found: phones, orts)"),
        ("w.TextGrid", PRAAT.replace("0.6", "0.1"), "row 37: 'movie' ends at 0.1 s"),
        ("w.doc", "the movie\n", "'.doc' are unknown; give one of .txt"),
    ],
)
def test_errors_of_words(tmp_path: Path, name: str, content: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"{name}.*{said}".replace("?", r"\?")):
        read_words(path, "a")


# Tables of pictures.

NEWEST = (
    *("frame", "face_id", "timestamp", "confidence", "success"),
    *(column for group in OPENFACE_GROUPS.values() for column in group),
)
#: Of version 1: no face_id, no gaze angle, no landmarks of eyes, spaces.
OLDEST = (
    *("frame", "timestamp", "confidence", "success"),
    *OPENFACE_GROUPS["gaze"][:6],
    *(c for g in list(OPENFACE_GROUPS)[1:] for c in OPENFACE_GROUPS[g]),
)


def openface(
    path: Path, header: tuple[str, ...] = NEWEST, frames: int = 50, step: float = 0.04
) -> Path:
    """A file of OpenFace: each value is its column's place, plus its row / 1000."""
    lines = [", ".join(header) if header is OLDEST else ",".join(header)]
    for i in range(frames):
        own = {"frame": i + 1, "face_id": 0, "timestamp": round(i * step, 3)}
        own |= {"confidence": 0.98, "success": 1}
        values = [own.get(name, k + i / 1000) for k, name in enumerate(header)]
        lines.append(",".join(map(str, values)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_openface_columns_are_found_by_name(tmp_path: Path) -> None:
    sizes = [len(group) for group in OPENFACE_GROUPS.values()]
    assert (len(NEWEST), sum(sizes)) == (714, 709)
    assert sizes == [288, 6, 136, 204, 40, 17, 18]
    widths = {name: len(OpenFace(name).columns) for name in OPENFACE_SETS}
    assert widths == {"au": 35, "pose-au": 41, "177": 177, "all": 709}
    assert len(OLDEST) == 431
    for header in (NEWEST, OLDEST):
        path = openface(tmp_path / "a.csv", header)
        track = OpenFace().read(path)
        assert track.values.shape == (50, 41) and track.available.all()
        places = [header.index(name) for name in OpenFace().columns]
        assert track.values[0] == pytest.approx(places)
    with pytest.raises(DataError, match=r"no column 'gaze_angle_x'; .*\(-gaze\)"):
        OpenFace("all").read(path)


def test_openface_rows_without_a_face_are_missing(tmp_path: Path) -> None:
    path = openface(tmp_path / "a.csv")
    lines = path.read_text().splitlines()
    faults = {
        3: ("0.98,1", "0.98,0"),
        5: ("0.98,1", "0.69,1"),
        8: ("286,", "-nan(ind),"),
    }
    for row in faults:
        old, new = faults[row]
        if row == 8:
            cells = lines[row].split(",")
            cells[NEWEST.index("AU01_r")] = "-nan(ind)"
            lines[row] = ",".join(cells)
        else:
            lines[row] = lines[row].replace(old, new, 1)
    path.write_text("\n".join(lines))
    track = OpenFace().read(path)
    assert np.flatnonzero(~track.available).tolist() == [2, 4, 7]
    assert np.isfinite(track.values).all()


def test_errors_of_openface(tmp_path: Path) -> None:
    path = openface(tmp_path / "a.csv", OLDEST, 100, step=0.001)
    with pytest.raises(
        DataError, match="1 ms apart.*image folder; give --openface-fps"
    ):
        OpenFace().read(path)
    assert OpenFace(fps=25).read(path).times[[0, 1]] == pytest.approx([0, 0.04])
    with pytest.raises(DataError, match="row 3: the times do not rise"):
        OpenFace().read(openface(path, step=0.0))
    lines = openface(path).read_text().splitlines()
    two = lines[2].replace("2,0,", "2,1,", 1)
    path.write_text("\n".join([*lines[:2], two]))
    with pytest.raises(DataError, match=r"holds 2 faces \(face_id 0, 1"):
        OpenFace().read(path)
    with pytest.raises(DataError, match="has no column 'AU01_r'.*-aus"):
        OpenFace().read(openface(path, NEWEST[:300]))
    with pytest.raises(DataError, match="has no column 'frame'; give the CSV"):
        OpenFace().read(write_table(path, "1,2", header="time,smile"))
    with pytest.raises(DataError, match="holds no rows"):
        OpenFace().read(openface(path, frames=0))
    with pytest.raises(SettingsError, match="choose from au, pose-au"):
        OpenFace("everything")


def test_a_table_of_anybodys(tmp_path: Path) -> None:
    rows = ["0,1,.5,.9", "0.1,2,n/a,.9", "0.2,3,.5,.2"]
    path = write_table(tmp_path / "t.csv", *rows, header="time,smile,brow,confidence")
    table = Table()
    track = table.read(path)
    assert track.columns == ("smile", "brow") and track.values[0].tolist() == [1, 0.5]
    assert track.available.tolist() == [True, False, False]
    other = write_table(tmp_path / "u.csv", "0,1", header="time,smile")
    with pytest.raises(DataError, match=r"u\.csv.*write the same in every table"):
        table.read(other)
    with pytest.raises(DataError, match="needs a column 'time'"):
        table.read(write_table(other, "1", header="smile"))


def test_mediapipe_needs_its_model_and_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="there is no such face model; .*--face-model"):
        MediaPipe(tmp_path / "face_landmarker.task")
    (tmp_path / "face_landmarker.task").touch()
    monkeypatch.setitem(__import__("sys").modules, "mediapipe", None)
    with pytest.raises(MissingPackageError, match="pip install mediapipe"):
        MediaPipe(tmp_path / "face_landmarker.task")


# All together.


def test_clips_of_three_containers_become_a_file(tmp_path: Path) -> None:
    seen = faces(50)
    seen[:20] = 0  # the camera is covered
    write_clip(tmp_path / "both.mp4", tone(220), pictures=seen)
    hushed = tone(220)
    hushed[8000:16_000] = 0
    write_clip(tmp_path / "voice.wav", hushed)
    write_clip(tmp_path / "mute.webm", pictures=faces(25))
    header = "clip,split,label,text"
    rows = [f"both.mp4,train,1.5,{SENTENCE}", "voice.wav,test,,the movie", "mute.webm"]
    table = write_table(tmp_path / "c.csv", *rows, header=header)
    made = extract(table, vision=Brightness(), encoder="simulated")
    write_mmsa(made.dataset, tmp_path / "own.pkl")
    data = read_mmsa(tmp_path / "own.pkl", labelled=False)
    assert (data.name, data.mended, list(data.splits)) == ("own", (), ["train", "test"])
    both, rest = data.train.batch, data.test.batch
    assert both.labels.tolist() == [1.5] and bool(rest.labels.isnan().all())
    assert both.tokens[0, :9].tolist() == IDS
    # Ten rows of two frames each; the first ones hold no face.
    assert (both.audio_lengths.tolist(), both.vision_lengths.tolist()) == ([25], [25])
    assert both.vision[0].ne(0).any(dim=1)[:25].tolist() == [False] * 10 + [True] * 15
    gone = (~rest.audio[0, :25].ne(0).any(dim=1)).nonzero()[:, 0].tolist()
    assert gone == [6, 7, 8, 9, 10, 11]
    assert rest.vision_lengths.tolist() == [25, 13] and not rest.vision[0].any()
    assert rest.audio_lengths[1] == 13 and not rest.audio[1].any()
    assert rest.token_lengths.tolist() == [4, 6]
    assert rest.tokens[1, :6].tolist() == [101, *[UNK] * 4, 102]
    assert data.test.ids == ("voice", "mute")
    features = data.features
    assert features["audio"]["columns"] == list(Plain.columns)
    assert features["audio"]["fingerprint"] == fingerprint(features["audio"])
    assert set(features["audio"]["libraries"]) == {"av", "torch"}
    assert features["vision"]["extractor"] == "brightness"
    assert features["text"] == {
        "tokenizer": "simulated",
        "vocab_sha256": TOKENIZER.vocab_sha256,
        "unclear_below": 0.5,
    }
    notes = " ".join(made.notes)
    for what in ("no sound", "sound that is muted", "rows without a face"):
        assert f"1 of 3 clips have {what}" in notes
    assert "1 of 3 clips have no picture (such as 'voice')" in notes
    assert "1 of 3 clips have no words" in notes
    # Half a second of the four that have sound.
    assert "12.5% of all sound is muted or missing" in notes
    assert made.dataset.test.batch.gaps and rest.gaps


def test_a_gap_at_the_start_of_the_longest_clip_is_no_padding(tmp_path: Path) -> None:
    seen = faces(20)
    seen[:8] = 0
    write_clip(tmp_path / "a.mp4", pictures=seen)
    table = write_table(tmp_path / "c.csv", "a.mp4")
    made = extract(table, vision=Brightness(), encoder="simulated")
    write_mmsa(made.dataset, tmp_path / "own.pkl")
    data = read_mmsa(tmp_path / "own.pkl", labelled=False)
    assert data.mended == () and data.test.batch.vision_lengths.tolist() == [10]
    there = data.test.batch.vision[0].ne(0).any(dim=1)[:10]
    assert there.tolist() == [False] * 4 + [True] * 6


def test_utterances_of_one_recording(tmp_path: Path) -> None:
    write_clip(tmp_path / "long.mp4", tone(220, 4.0), pictures=faces(100))
    openface(tmp_path / "of.csv", frames=100)
    (tmp_path / "w.csv").write_text("word,start,end\nthe,0,1\nmovie,1.5,2.1\n")
    header = "clip,start,end,words,openface"
    rows = [f"long.mp4,{t},w.csv,of.csv" for t in ("0,1.5", "1.5,3")]
    table = write_table(tmp_path / "c.csv", *rows, header=header)
    made = extract(table, encoder="simulated")
    split = made.dataset.test
    assert split.ids == ("long@0", "long@1.5") and split.raw_text == ("the", "movie")
    first = NEWEST.index("pose_Tx")
    # Frames 0, 1 and 38, 39: rows begin anew where the utterance does.
    assert split.batch.vision[:, 0, 0].tolist() == pytest.approx(
        [first + 0.0005, first + 0.0385], abs=1e-4
    )
    assert made.dataset.features["vision"]["parameters"]["columns"] == "pose-au"
    assert made.notes == ()
    pooled = extract(table, vision=OpenFace("au", pool=5), encoder="simulated")
    assert pooled.dataset.test.batch.vision_lengths.tolist() == [8, 8]
    assert pooled.dataset.features["vision"]["rate"] is None
    openface(tmp_path / "of.csv", frames=50)
    assert any(
        "over 0.5 s" in note for note in extract(table, encoder="simulated").notes
    )


def test_a_bad_clip_stops_all_or_is_left_out(
    tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.mp4").write_text("no clip")
    table = write_table(tmp_path / "c.csv", "a.wav", "bad.mp4")
    out = tmp_path / "own.pkl"
    command = ["features", str(table), "--out", str(out), "--encoder", "simulated"]
    assert main([*command, "--quiet"]) == 1
    said = capsys.readouterr().err
    assert f"{table}, row 3: " in said and "bad.mp4: cannot be opened" in said
    assert not out.exists() and not list(tmp_path.glob("*.tmp"))
    assert main([*command, "--quiet", "--skip-bad"]) == 1
    said = capsys.readouterr()
    assert "left out:" in said.err and "bad.mp4" in said.err
    assert "1 test; audio 17 columns, vision 1" in said.out
    assert read_mmsa(out, labelled=False).test.ids == ("a",)
    assert main(["data", "check", str(out)]) in (0, 1)
    write_table(table, "bad.mp4")
    assert main([*command, "--quiet", "--skip-bad"]) == 1
    assert "no clip is left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pool", "5"], "--pool is for --vision openface"),
        (["--vision", "mediapipe"], "--vision mediapipe and --face-model FILE go"),
        (["--vision", "openface"], "add a column 'openface'"),
        (["--rate", "12"], "must divide 50"),
        (["--unclear", "50"], "a confidence in [0, 1]"),
    ],
)
def test_options_that_make_no_sense(
    tmp_path: Path,
    clip: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    table = write_table(tmp_path / "c.csv", "a.wav")
    out = ["--out", str(tmp_path / "own.pkl"), "--encoder", "simulated", "--quiet"]
    assert main(["features", str(table), *out, *options]) == 1
    assert said in capsys.readouterr().err
    assert main(["features", str(table), "--out", str(table)]) == 1


def test_long_recordings_and_odd_ones_are_noted(tmp_path: Path) -> None:
    loud = np.clip(5 * tone(220, 61.0), -1, 1)
    still = np.repeat(faces(1), 25, axis=0)
    write_clip(tmp_path / "a.wav", loud)
    write_clip(tmp_path / "b.mp4", tone(220, 1.0), pictures=still)
    (tmp_path / "w.csv").write_text("word\n[Music]\n")
    rows = ("a.wav,the movie,", "b.mp4,,w.csv")
    table = write_table(tmp_path / "c.csv", *rows, header="clip,text,words")
    notes = extract(table, vision=Brightness(), encoder="simulated").notes
    for what in ("last over 60 s", "have clipped sound", "stands still", "no words"):
        assert [what in note for note in notes].count(True) == 1


def test_an_extractor_that_breaks_its_promise(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", pictures=faces(10))
    table = write_table(tmp_path / "c.csv", "a.mp4")

    class Wrong(Brightness):
        columns = ("mean",)

    with pytest.raises(SettingsError, match=r"'brightness' gives values \(10, 2\)"):
        extract(table, vision=Wrong(), encoder="simulated")
    Wrong.parameters = {"size": np.float32(1)}
    with pytest.raises(
        SettingsError, match="'brightness': its parameters are no plain"
    ):
        extract(table, vision=Wrong(), encoder="simulated")

    class Nameless:
        pass

    with pytest.raises(SettingsError, match="Nameless has no 'name'"):
        extract(table, vision=Nameless(), encoder="simulated")  # type: ignore[arg-type]


def test_fingerprints_tell_equal_from_other_features() -> None:
    made = {"extractor": "plain", "version": 1, "columns": ["f0"], "rate": 12.5}
    one = {**made, "parameters": {"hop": 320, "frame": 640}, "libraries": {"av": "18"}}
    same = {**one, "parameters": {"frame": 640, "hop": 320}, "libraries": {"av": "19"}}
    other = {**one, "parameters": {"hop": 160, "frame": 640}}
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)


def test_a_clip_takes_tens_of_milliseconds(tmp_path: Path) -> None:
    import time

    write_clip(tmp_path / "a.mp4", tone(220), pictures=faces(50))
    table = write_table(tmp_path / "c.csv", "a.mp4")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    extract(table, vision=Brightness(), encoder="simulated")
    before = time.process_time()
    extract(table, vision=Brightness(), encoder="simulated")
    took = time.process_time() - before
    torch.set_num_threads(threads)
    assert took < 0.5, took
    print(f"{1000 * took:.0f} ms")
