"""What is said: words of a transcript or a recogniser, and the tokens of a model.

A word that was not understood becomes as many [UNK] as it has pieces: the form of an
erased word.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lnln.data.batch import DataError
from lnln.data.mmsa.tokenizer import Tokenizer
from lnln.features.clips import number_in, read_lines, read_table

# What recognisers and typists write for a word that they did not understand.
_NOT_UNDERSTOOD = re.compile(
    r"<unk>|\[unk\]|x{3,}|[\[<](?:inaudible|unintelligible|unclear)[\]>]", re.IGNORECASE
)
# What they write for what is no word: [Music], <sil>, ++NOISE++.
_NO_WORD = re.compile(r"\[[^\]]*\]|<[^<>\s]*>|\+\+\S*?\+\+")
_MARKS = re.compile(rf"{_NOT_UNDERSTOOD.pattern}|{_NO_WORD.pattern}", re.IGNORECASE)
_TIME = r"(?:(\d+):)?(\d+):(\d+)[.,](\d{1,3})"
# How subtitles are set: italics, speakers, colours, times of words.
_STYLE = re.compile(r"</?(?:[bciuv]|font|lang|ruby|rt)\b[^>]*>|<[\d:.]+>")
_CUE = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}")
# Praat reads strings in quotes and numbers that stand alone; all else is comment.
_STRING, _NUMBER = r'"(?:[^"]|"")*"', r"-?[\d.]+(?:e-?\d+)?"
_PRAAT = re.compile(rf"!.*|{_STRING}|(?<!\S){_NUMBER}(?!\S)")
_PAUSES = ("", "sp", "sil")
#: Words a second of English speech: how many are missing where nothing is known.
WORDS_A_SECOND, FEWEST_WORDS = 2.9, 4


@dataclass(frozen=True)
class Word:
    """A word that was said.

    Attributes:
        text: as it is written.
        start, end: seconds in the recording; None: unknown.
        confidence: of the recogniser, in [0, 1]; None: unknown.
    """

    text: str
    start: float | None = None
    end: float | None = None
    confidence: float | None = None


def read_words(path: Path, clip_id: str = "") -> list[Word]:
    """Read the words of a recording.

    Args:
        path: .txt; .csv with `word` and perhaps `start`, `end`, `confidence`; .json of
            whisper, faster-whisper or vosk; .ctm; .srt; .vtt;
            .TextGrid of Praat, with a tier "words" or one tier of intervals only.
        clip_id: in a CTM file that holds several recordings, the wanted one.

    Returns:
        The words as they are written, markers included. Words of a line that has times
        as a whole share its time evenly.

    Raises:
        DataError: the file is of no known form, a word ends before it begins, or a
            confidence lies outside of [0, 1].
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: words in a file {path.suffix or 'without ending'!r} are unknown; "
            f"give one of {', '.join(_READERS)}"
        )
    return list(reader(path, clip_id))


def between(words: Sequence[Word], start: float, end: float) -> list[Word]:
    """The words whose middle lies in a stretch; those without times stay."""
    kept = []
    for word in words:
        if word.start is None or word.end is None:
            kept.append(word)
        elif start <= (word.start + word.end) / 2 < end:
            kept.append(word)
    return kept


def split_text(text: str) -> list[Word]:
    """The words of a text: what stands between spaces, and markers such as [Music]."""
    found = []
    last = 0
    for mark in _MARKS.finditer(text):
        # Letters right beside it, as in "xxxl", make it a part of a word.
        if _inside_word(text, mark.start(), mark.end()):
            continue
        found += text[last : mark.start()].split()
        found.append(mark.group())
        last = mark.end()
    return [Word(word) for word in [*found, *text[last:].split()]]


def _inside_word(text: str, start: int, end: int) -> bool:
    before, behind = text[max(0, start - 1) : start], text[end : end + 1]
    ends = text[start], text[end - 1]
    return (before.isalnum() and ends[0].isalnum()) or (
        behind.isalnum() and ends[1].isalnum()
    )


@dataclass(frozen=True)
class Sentence:
    """Words as a model reads them.

    Attributes:
        ids: token ids, `[CLS] ... [SEP]`.
        text: the words, [UNK] for each piece that was not understood.
        words: how many there are.
        unclear: how many of them were not understood.
        cut: whether it was longer than the text encoder takes.
    """

    ids: list[int]
    text: str
    words: int
    unclear: int
    cut: bool


def no_transcript(seconds: float, tokenizer: Tokenizer) -> Sentence:
    """What stands for the words where nothing is known of them.

    As many [UNK] as such a time usually holds words: [CLS] [SEP] alone would read as a
    short sentence that is there.
    """
    count = max(FEWEST_WORDS, round(WORDS_A_SECOND * seconds))
    unknown = [tokenizer.special.unk] * count
    return _sentence(unknown, ["[UNK]"] * count, count, count, tokenizer)


def as_sentence(
    words: Sequence[Word], tokenizer: Tokenizer, unclear: float
) -> Sentence | None:
    """Split words into pieces; what was not understood becomes [UNK].

    Args:
        words: as read.
        tokenizer: of the model's text encoder.
        unclear: the confidence below which a word counts as not understood.

    Returns:
        The sentence; None without any word.
    """
    said = [w for w in words if not _is_marker(w.text)]
    known = [w.text for w in said if not _NOT_UNDERSTOOD.fullmatch(w.text)]
    bounds = _bounds(known, tokenizer)
    whole = tokenizer.encode([" ".join(known)])[0][1:-1] if known else []
    ids: list[int] = []
    shown: list[str] = []
    lost = place = 0
    for word in said:
        if _NOT_UNDERSTOOD.fullmatch(word.text):
            pieces, understood = [tokenizer.special.unk], False
        else:
            pieces = whole[bounds[place] : bounds[place + 1]]
            understood = word.confidence is None or word.confidence >= unclear
            place += 1
        lost += not understood
        ids += pieces if understood else [tokenizer.special.unk] * len(pieces)
        shown += [word.text] if understood else ["[UNK]"] * len(pieces)
    if not ids:
        return None
    return _sentence(ids, shown, len(said), lost, tokenizer)


def _sentence(
    ids: list[int], shown: list[str], words: int, lost: int, tokenizer: Tokenizer
) -> Sentence:
    special = tokenizer.special
    room = tokenizer.longest - 2
    row = [special.cls, *ids[:room], special.sep]
    return Sentence(row, " ".join(shown), words, lost, len(ids) > room)


def _bounds(words: list[str], tokenizer: Tokenizer) -> list[int]:
    """Where the pieces of each word begin in the sentence, and where the last ends."""
    # Pieces of a word may depend on the space before it, so beginnings are compared.
    starts = [" ".join(words[: i + 1]) for i in range(len(words))]
    return [0, *(len(row) - 2 for row in tokenizer.encode(starts))]


def _is_marker(text: str) -> bool:
    return bool(_NO_WORD.fullmatch(text)) and not _NOT_UNDERSTOOD.fullmatch(text)


def _word(where: str, text: str, start: Any, end: Any, confidence: Any) -> Word:
    """A checked word."""
    numbers = [
        None if value is None or value == "" else number_in(str(value), where, name)
        for name, value in (
            ("start", start),
            ("end", end),
            ("confidence", confidence),
        )
    ]
    word = Word(text, *numbers)
    if word.start is not None and word.end is not None and word.end < word.start:
        raise DataError(
            f"{where}: {text[:40]!r} ends at {word.end:g} s, before it begins at "
            f"{word.start:g} s; are the columns in another order?"
        )
    if word.confidence is not None and not 0 <= word.confidence <= 1:
        raise DataError(
            f"{where}: confidence {word.confidence:g} of {text[:40]!r} lies outside of "
            "[0, 1]; divide by 100?"
        )
    return word


def _spread(where: str, text: str, start: Any, end: Any) -> Iterator[Word]:
    """The words of a line that has times as a whole share them evenly."""
    line = _word(where, text, start, end, None)
    words = split_text(text)
    for i, word in enumerate(words):
        if line.start is None or line.end is None:
            yield word
            continue
        step = (line.end - line.start) / len(words)
        begin = line.start + i * step
        yield replace(word, start=begin, end=begin + step)


def _read_text(path: Path, _: str) -> Iterator[Word]:
    yield from split_text("".join(read_lines(path)))


def _read_csv(path: Path, _: str) -> Iterator[Word]:
    header, rows = read_table(path)
    if "word" not in header:
        raise DataError(
            f"{path}: has no column 'word' (found: {', '.join(header)[:80] or 'none'});"
            " write word,start,end,confidence, of which the last three may be left out"
        )
    for number, row in rows:
        times = (row.get(name) for name in ("start", "end", "confidence"))
        if row["word"]:
            yield _word(f"{path}, row {number}", row["word"], *times)


def _read_json(path: Path, _: str) -> Iterator[Word]:
    try:
        content = json.loads("".join(read_lines(path)))
    except ValueError as error:
        raise DataError(f"{path}: is no JSON ({error}); {_FORMS}") from error
    try:
        yield from _json_words(path, content)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is JSON of no known form; {_FORMS}") from error


_FORMS = (
    "give what whisper or faster-whisper write (segments with words) or vosk (result)"
)


def _json_words(path: Path, content: Any) -> Iterator[Word]:
    if isinstance(content, dict) and "segments" in content:
        for i, segment in enumerate(content["segments"]):
            where = f"{path}, segment {i}"
            if segment.get("words"):
                for w in segment["words"]:
                    times = (w.get(k) for k in ("start", "end", "probability"))
                    yield _word(where, w["word"].strip(), *times)
            else:
                times = (segment.get(k) for k in ("start", "end"))
                yield from _spread(where, segment["text"], *times)
        return
    # vosk writes one result a stretch of speech; programs collect them in a list.
    results = content if isinstance(content, list) else [content]
    for i, result in enumerate(results):
        where = f"{path}, result {i}"
        if "result" not in result:
            # Without the option for words, and where nothing was heard, text alone.
            yield from split_text(result["text"])
        for w in result.get("result", ()):
            times = (w.get(k) for k in ("start", "end", "conf"))
            yield _word(where, w["word"], *times)


def _read_ctm(path: Path, clip_id: str) -> Iterator[Word]:
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        values = line.split()
        if not values or values[0].startswith(";;"):
            continue
        if len(values) not in (5, 6):
            raise DataError(
                f"{path}, row {number}: has {len(values)} fields; a CTM row is: file "
                "channel start duration word [confidence]"
            )
        rows.append((f"{path}, row {number}", values))
    files = {values[0] for _, values in rows}
    if len(files) > 1 and clip_id not in files:
        raise DataError(
            f"{path}: holds {len(files)} recordings, none called {clip_id!r}; give the "
            f"clip one of their names as its id, such as {min(files)!r}"
        )
    for where, values in rows:
        if len(files) == 1 or values[0] == clip_id:
            start = number_in(values[2], where, "start")
            end = start + number_in(values[3], where, "duration")
            yield _word(where, values[4], start, end, (values + [""])[5])


def _read_cues(path: Path, _: str) -> Iterator[Word]:
    """Words of SRT and WebVTT: lines of text under a line of times."""
    lines = [line.strip() for line in read_lines(path)]
    cue: tuple[float, float] | None = None
    where = ""
    text: list[str] = []
    for number, line in enumerate([*lines, ""], start=1):
        match = _CUE.match(line)
        if match:
            cue = _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
            where, text = f"{path}, row {number}", []
        elif cue is not None and line:
            text.append(_STYLE.sub("", line))
        elif cue is not None:
            yield from _spread(where, " ".join(text), *cue)
            cue = None
    if not any(_CUE.match(line) for line in lines):
        raise DataError(
            f"{path}: has no line of times such as 00:00:01.000 --> 00:00:02.000; save "
            "it as SRT or WebVTT, or as .txt without times"
        )


def _read_textgrid(path: Path, _: str) -> Iterator[Word]:
    """Words of Praat: a tier of intervals, in the long or the short text form."""
    text = "\n".join("".join(read_lines(path)).splitlines())
    breaks = [match.start() for match in re.finditer("\n", text)]
    values = (v for v in _PRAAT.finditer(text) if not v.group().startswith("!"))

    def take(form: str, what: str) -> tuple[str, str]:
        value = next(values, None)
        row = bisect(breaks, value.start() if value else len(text)) + 1
        if value is None or not re.fullmatch(form, value.group()):
            found = value.group()[:40] if value else "the end"
            raise DataError(
                f"{path}, row {row}: {what} should stand here, but {found} does; open "
                "it in Praat and save it as a text file"
            )
        told = value.group().removeprefix('"').removesuffix('"').replace('""', '"')
        return f"{path}, row {row}", told

    head = ('"ooTextFile.*"', '"TextGrid"', _NUMBER, _NUMBER, r"\d+")
    tiers: list[tuple[str, list[tuple[str, ...]]]] = []
    for _tier in range(int([take(f, "the head of a TextGrid") for f in head][-1][1])):
        forms = ('"(?:Interval|Text)Tier"', _STRING, _NUMBER, _NUMBER, r"\d+")
        kind, name, *_ends, count = (take(f, "the head of a tier")[1] for f in forms)
        times = 2 if kind == "IntervalTier" else 1
        rows = []
        for _row in range(int(count)):
            bounds = [take(_NUMBER, "a time")[1] for _end in range(times)]
            rows.append((*take(_STRING, "a text"), *bounds))
        if kind == "IntervalTier":
            tiers.append((name, rows))
    wanted = [tier for tier in tiers if tier[0].lower() == "words"] or tiers
    if len(wanted) != 1:
        raise DataError(
            f"{path}: cannot tell which tier of intervals holds the words (found: "
            f"{', '.join(name for name, _ in wanted)[:80] or 'none'}); call it 'words'"
        )
    for where, said, start, end in wanted[0][1]:
        if said.strip().lower() not in _PAUSES:
            yield from _spread(where, said, start, end)


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    value = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    return value + int(fraction) / 10 ** len(fraction)


_Reader = Callable[[Path, str], Iterator[Word]]
_READERS: dict[str, _Reader] = {
    ".txt": _read_text,
    ".csv": _read_csv,
    ".json": _read_json,
    ".ctm": _read_ctm,
    ".srt": _read_cues,
    ".vtt": _read_cues,
    ".textgrid": _read_textgrid,
}
