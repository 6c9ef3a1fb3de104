"""Make spoken, drawn clips of the simulated corpus, and the features of them.

For maintainers: it calls Debian's program espeak-ng (GPL), which the project
neither depends on nor ships. Sentences and labels are those of
`lnln.simulate`, every label equally often. A robot voice speaks each (pitch,
rate and range move with the label), a face drawn in 48 x 48 pixels smiles or
frowns in some frames. The link from label to voice and mouth is invented:
nothing follows about people.

    python book/_tools/clips.py make CLIPS
    python book/_tools/clips.py features CLIPS/clips.csv own.pkl
    python book/_tools/clips.py ship CLIPS data/clips
    python book/_tools/clips.py faults CLIPS/clips.csv RUN scores.csv

The first makes mp4 files and their table, the second the file of features,
with the extractor of drawn faces below, the third the few clips that come
with the book, the fourth what a trained model says of the test clips with
faults in them. Everything follows from the seed;
espeak-ng's and FFmpeg's versions may change the sound. The voices of a split
speak in no other one.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import torch
from av.video.reformatter import VideoReformatter
from tqdm.auto import tqdm

from lnln.data.batch import LABEL_VALUES, MODALITIES, Batch
from lnln.data.mmsa.reader import write_mmsa
from lnln.data.simulated.corpus import simulate
from lnln.evaluation.sweep import write_csv
from lnln.features import Clip, extract, open_media, read_clips, read_sound
from lnln.features.media import read_pictures
from lnln.missing.corruption import CORRUPTIONS
from lnln.missing.erasing import fixed_rates, split_uniforms
from lnln.missing.gaps import counts
from lnln.teaching.faults import (
    Faults,
    Stretch,
    damage,
    inside,
    word_middles,
)
from lnln.training.checkpoint import TrainedModel, open_run

RATE, FPS, SIZE = 22_050, Fraction(25, 2), 48
#: Accents and timbres of espeak-ng's adult male voices, which lie close in
#: pitch: with women's, the speaker would drown the label's part of it.
ACCENTS = (
    "en-us",
    "en-gb",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-029",
    "en-gb-x-gbclan",
)
TIMBRES = ("", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6")
#: Voices of a split, and speakers a voice, each with a pitch and a rate.
VOICES = {"train": 30, "valid": 6, "test": 6}
SPEAKERS_A_VOICE = 3
PITCH, RATE_OF_SPEECH, RANGE = (50, 2.5, 9), (165, 3, 14), (50, 3)
NOISE_DBFS = -45
P_EXPRESSIVE, MOUTH_EFFECT, MOUTH_NOISE = 0.15, 0.5, 0.8
FEWEST_WORDS, MOST_WORDS = 4, 14
# Where the mouth is, in pixels, and how far one unit of curve bends it.
MIDDLE, MOUTH_Y, HALF_WIDTH, BEND = 24, 35.0, 10, 1.2
SKIN, DARK, WALL = 205.0, 30.0, 120.0
#: The labels of the clips that ship, and what was done to each.
SHIPPED = {
    -2.6: "as made",
    -1.8: "mp3, no picture",
    -1.0: "muted from 0.6 to 1.6 s",
    -0.2: "as made",
    0.2: "as made",
    1.0: "no sound",
    1.8: "wav, no picture",
    2.6: "as made",
}
LONGEST_SHIPPED, MUTED_SHIPPED = 3.2, (0.6, 1.6)
#: Shares of a clip in which sound, picture and words are lost.
SEVERITIES = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Utterance:
    """What is said, by whom."""

    id: str
    split: str
    label: float
    text: str
    voice: str
    speaker: str
    pitch: float
    rate: float


class DrawnFace:
    """The mouth of a drawn face: how it bends, and where it is.

    The mouth is what is dark below the eyes. A parabola through the middles
    of its columns gives `curve` (pixels from its ends to its middle, positive
    for a smile) and `height`. Without a mouth there is no face.
    """

    name = "drawn-face"
    version = 1
    parameters: dict[str, Any] = {"mouth_rows": [26, 45], "dark_below": 110}
    columns = ("curve", "height")

    def __call__(
        self, frames: np.ndarray, times: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values (F, 3) and available (F,) of (F, 48, 48, 3) pictures."""
        top, bottom = self.parameters["mouth_rows"]
        x = np.arange(-HALF_WIDTH, HALF_WIDTH + 1)
        mouth = frames[:, top:bottom, x + MIDDLE].mean(axis=-1)
        dark = np.clip(self.parameters["dark_below"] - mouth, 0, None)
        total = dark.sum(axis=1)  # (F, columns)
        rows = np.arange(top, bottom)[:, None]
        middles = (dark * rows).sum(axis=1) / np.maximum(total, 1)
        # One fit for all frames: the constant and the bent part.
        forms = np.stack([np.ones(len(x)), 1 - (x / HALF_WIDTH) ** 2])
        height, curve = np.linalg.pinv(forms.T) @ middles.T
        available = (total > 0).mean(axis=1) > 0.8
        return np.stack([curve, height], axis=1), available


def utterances(split: str, count: int, seed: int) -> list[Utterance]:
    """Sentences of the simulated corpus, all labels equally often."""
    place = list(VOICES).index(split)
    rng = np.random.default_rng([seed, place, 48])
    first = sum(list(VOICES.values())[:place])
    all_voices = [accent + timbre for timbre in TIMBRES for accent in ACCENTS]
    order = np.random.default_rng([seed, 49]).permutation(len(all_voices))
    voices = [all_voices[i] for i in order[first : first + VOICES[split]]]
    speakers = [
        (
            voice,
            f"{split}{i}.{k}",
            *rng.normal(0, (PITCH[2], RATE_OF_SPEECH[2])),
        )
        for i, voice in enumerate(voices)
        for k in range(SPEAKERS_A_VOICE)
    ]
    # The rarest label is one in 160, two thirds of the sentences fit.
    drawn = simulate("mini", 3 * seed + place, 2000 + 14 * count).train
    words = (drawn.batch.token_lengths - 2).numpy()
    labels = np.round(drawn.batch.labels.numpy().astype(float), 1)
    fits = (words >= FEWEST_WORDS) & (words <= MOST_WORDS)
    wanted = np.resize(rng.permutation(LABEL_VALUES["mosi"]), count)
    left = {y: iter(np.flatnonzero(fits & (labels == y))) for y in set(wanted)}
    made = []
    for i, y in enumerate(rng.permutation(wanted)):
        voice, speaker, pitch, rate = speakers[rng.integers(len(speakers))]
        text = drawn.raw_text[next(left[y])]
        made.append(
            Utterance(
                f"{split}{i:04}", split, y, text, voice, speaker, pitch, rate
            )
        )
    return made


def speak(said: Utterance, rng: np.random.Generator) -> np.ndarray:
    """The sound of an utterance, (n,) at 22,050 Hz, with noise."""
    pitch = PITCH[0] + said.pitch + PITCH[1] * said.label
    rate = RATE_OF_SPEECH[0] + said.rate + RATE_OF_SPEECH[1] * said.label
    spread = round(RANGE[0] + RANGE[1] * said.label)
    text = f'<speak><prosody range="{spread}">{said.text}</prosody></speak>'
    command = ["espeak-ng", "-m", "--stdout", "-v", said.voice]
    command += [
        "-p",
        str(round(np.clip(pitch, 0, 99))),
        "-s",
        str(round(rate)),
    ]
    done = subprocess.run(
        [*command, "--", text], check=True, capture_output=True
    )
    # Behind a header of 44 bytes, which does not know the length in a pipe.
    sound = np.frombuffer(done.stdout[44:], dtype="<i2") / 2**15
    loud = np.flatnonzero(np.abs(sound) > 1e-3)
    sound = sound[: loud[-1] + RATE // 20]
    noise = rng.normal(0, 10 ** (NOISE_DBFS / 20), len(sound))
    return (sound + noise).clip(-1, 1).astype(np.float32)


def draw(curves: np.ndarray) -> np.ndarray:
    """Faces whose mouths bend, (F, 48, 48, 3) uint8, of (F,) curves."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    face = np.hypot(x - MIDDLE, (y - 24) / 1.1) < 20
    eyes = np.hypot(np.abs(x - MIDDLE) - 7, y - 18) < 2.5
    still = np.where(eyes, DARK, np.where(face, SKIN, WALL))
    along = (x - MIDDLE) / HALF_WIDTH
    # A smile's middle hangs lower than its ends.
    middle = MOUTH_Y + BEND * curves[:, None, None] * (0.5 - along**2)
    ink = np.exp(-(((y - middle) / 1.2) ** 2)) * (np.abs(along) <= 1)
    grey = still * (1 - ink) + DARK * ink
    return np.repeat(grey[..., None], 3, axis=-1).round().astype(np.uint8)


def write(path: Path, sound: np.ndarray, pictures: np.ndarray) -> None:
    """Write a clip as mp4: AAC and H.264."""
    with av.open(str(path), "w") as container:
        heard = container.add_stream("aac", rate=RATE, layout="mono")
        heard.options = {"aac_coder": "fast"}
        seen = container.add_stream("libx264", rate=FPS)
        seen.width = seen.height = SIZE
        seen.pix_fmt, seen.options = (
            "yuv420p",
            {"preset": "ultrafast", "crf": "20"},
        )
        seen.codec_context.thread_count = 1
        frame = av.AudioFrame.from_ndarray(
            sound[None], format="fltp", layout="mono"
        )
        frame.sample_rate, frame.time_base, frame.pts = (
            RATE,
            Fraction(1, RATE),
            0,
        )
        sliced = av.AudioResampler("fltp", "mono", RATE, 1024)
        for part in [*sliced.resample(frame), *sliced.resample(None)]:
            container.mux(heard.encode(part))
        container.mux(heard.encode(None))
        colours = VideoReformatter()
        for i, picture in enumerate(pictures):
            drawn = av.VideoFrame.from_ndarray(picture, format="rgb24")
            # More threads than one only wait for each other at such sizes.
            drawn = colours.reformat(drawn, format="yuv420p", threads=1)
            drawn.pts = i
            container.mux(seen.encode(drawn))
        container.mux(seen.encode(None))


def make(options: argparse.Namespace) -> None:
    """Write the clips and their table."""
    options.folder.mkdir(parents=True, exist_ok=True)
    said = [
        u
        for s in VOICES
        for u in utterances(s, getattr(options, s), options.seed)
    ]
    for i, one in enumerate(tqdm(said, unit="clip")):
        rng = np.random.default_rng([options.seed, i, 50])
        sound = speak(one, rng)
        # Not longer than the sound, which would else be missing there.
        count = max(1, int(len(sound) / RATE * FPS))
        smiles = MOUTH_EFFECT * one.label * (rng.random(count) < P_EXPRESSIVE)
        curves = smiles + rng.normal(0, MOUTH_NOISE, count)
        write(options.folder / f"{one.id}.mp4", sound, draw(curves))
    with open(
        options.folder / "clips.csv", "w", encoding="utf-8", newline=""
    ) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ["clip", "id", "split", "label", "text", "_voice", "_speaker"]
        )
        for u in said:
            label = f"{u.label:.1f}"
            row = [
                f"{u.id}.mp4",
                u.id,
                u.split,
                label,
                u.text,
                u.voice,
                u.speaker,
            ]
            table.writerow(row)


def features(options: argparse.Namespace) -> None:
    """Extract the features of such clips."""
    made = extract(
        options.table, vision=DrawnFace(), encoder="simulated", progress=True
    )
    write_mmsa(made.dataset, options.out)
    print("\n".join(made.notes) or "nothing is missing")


def ship(options: argparse.Namespace) -> None:
    """Write the few clips that come with the book, in several containers."""
    options.out.mkdir(parents=True, exist_ok=True)
    made = pd.read_csv(options.clips / "clips.csv", dtype=str)
    spoken: Counter[str] = Counter()
    rows = []
    for label, what in SHIPPED.items():
        fits = made[(made.split == "test") & (made.label == f"{label:.1f}")]
        # Of those, one that is short, by whoever was heard least so far.
        short = [
            row
            for row in fits.to_dict("records")
            if MUTED_SHIPPED[1]
            < open_media(options.clips / row["clip"]).duration
            < LONGEST_SHIPPED
        ]
        row = min(short, key=lambda row: spoken[row["_voice"]])
        spoken[row["_voice"]] += 1
        ending = what[:3] if what[:3] in ("mp3", "wav") else "mp4"
        row |= {"clip": f"{row['id']}.{ending}", "_what": what}
        source = options.clips / f"{row['id']}.mp4"
        change(source, options.out / row["clip"], what)
        rows.append(row)
    # In the order of the ids, which tells nothing of the labels.
    rows.sort(key=lambda row: row["id"])
    write_csv(options.out / "clips.csv", pd.DataFrame(rows))


def change(source: Path, out: Path, what: str) -> None:
    """Write a clip in another form."""
    if what == "as made":
        shutil.copyfile(source, out)
        return
    media = open_media(source)
    sound, _ = read_sound(media, RATE)
    if what.startswith("muted"):
        start, end = (round(time * RATE) for time in MUTED_SHIPPED)
        sound[start:end] = 0
        (pictures, _), *_ = read_pictures(media)
        write(out, sound, pictures)
        return
    with av.open(str(out), "w") as container:
        if what == "no sound":
            with av.open(str(source)) as given:
                (seen,) = given.streams.video
                stream = container.add_stream_from_template(seen)
                for packet in given.demux(seen):
                    if packet.dts is not None:
                        packet.stream = stream
                        container.mux(packet)
            return
        codec = {".mp3": "mp3", ".wav": "pcm_s16le"}[out.suffix]
        heard = container.add_stream(codec, rate=RATE, layout="mono")
        whole = (sound * 2**15).round().clip(-(2**15), 2**15 - 1)
        frame = av.AudioFrame.from_ndarray(
            whole.astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = RATE, 0
        fits = av.AudioResampler(heard.format, "mono", RATE, heard.frame_size)
        for part in [*fits.resample(frame), *fits.resample(None)]:
            container.mux(heard.encode(part))
        container.mux(heard.encode(None))


def faults(options: argparse.Namespace) -> None:
    """Score the test clips of a table with faults, put in before extraction.

    Beside them the same clips with the same stretches erased after
    extraction ("rows"), and with bursts as `lnln evaluate` draws them, in
    each modality elsewhere. A line a clip: the answer that is scored by its
    mean absolute error (the median), the sentiment (the mean), w, and which
    shares are there.
    """
    clips = [c for c in read_clips(options.table) if c.split == "test"]
    clips = clips[: options.most]
    model = open_run(options.run_folder)
    lengths = [open_media(clip.path).duration for clip in clips]
    whole = features_of(clips)
    lines = [said(model, whole, "complete", 0.0)]
    for severity in SEVERITIES:
        spans = stretches(lengths, severity, options.seed)
        lost = [Faults(muted=s, covered=s, unheard=s) for s in spans]
        batch = features_of(clips, lost)
        lines.append(said(model, batch, "faults", severity))
        rows = erased_rows(whole, clips, spans, lengths)
        lines.append(said(model, rows, "rows", severity))
        drawn = CORRUPTIONS["bursts"].damage(
            whole, severity, MODALITIES, options.seed
        )
        lines.append(said(model, drawn.erased(), "bursts", severity))
    for severity in (SEVERITIES[1], 1.0):
        spans = stretches(lengths, severity, options.seed)
        for name, dead in (
            ("dead microphone, recognised", [Faults(muted=s) for s in spans]),
            ("dead microphone, hissing", [Faults(hiss=s) for s in spans]),
            ("picture frozen", [Faults(frozen=s) for s in spans]),
        ):
            batch = features_of(clips, dead)
            lines.append(said(model, batch, name, severity))
    table = pd.concat(lines, ignore_index=True)
    ids = np.resize([clip.id for clip in clips], len(table))
    table.insert(2, "id", ids)
    write_csv(options.out, table.round(4))
    table["error"] = (table.answer - table.label).abs()
    kept = ["error", "sentiment", "completeness", "words", "audio", "vision"]
    print(table.groupby(["condition", "severity"])[kept].mean().round(3))


def stretches(
    lengths: list[float], severity: float, seed: int
) -> list[Stretch]:
    """One stretch a clip that lasts such a share of it, anywhere in it."""
    starts = np.random.default_rng([seed, 51]).random(len(lengths))
    return [
        (u * (1 - severity) * n, (u * (1 - severity) + severity) * n)
        for u, n in zip(starts, lengths, strict=True)
    ]


def features_of(clips: list[Clip], wrong: list[Faults] | None = None) -> Batch:
    """The features of clips, with faults in them."""
    with tempfile.TemporaryDirectory() as folder:
        if wrong is not None:
            clips = [
                damage(clip, fault, Path(folder), seed)
                for seed, (clip, fault) in enumerate(
                    zip(clips, wrong, strict=True)
                )
            ]
        made = extract(clips, vision=DrawnFace(), encoder="simulated")
    return made.dataset.test.batch


def erased_rows(
    batch: Batch, clips: list[Clip], spans: list[Stretch], lengths: list[float]
) -> Batch:
    """Rows and words in a stretch of each clip erased after extraction."""
    batch = batch.select(torch.arange(len(batch)))
    for i, (clip, span, n) in enumerate(
        zip(clips, spans, lengths, strict=True)
    ):
        for frames in (batch.audio, batch.vision):
            middles = (np.arange(frames.shape[1]) + 0.5) / float(FPS)
            frames[i, torch.from_numpy(inside(middles, span))] = 0
        lost = np.flatnonzero(inside(word_middles(clip.text or "", n), span))
        batch.tokens[i, 1 + torch.from_numpy(lost)] = batch.special.unk
    return batch


def said(
    model: TrainedModel, batch: Batch, condition: str, severity: float
) -> pd.DataFrame:
    """What a model says of clips, a line each."""
    told = model.predict(
        batch, fixed_rates(len(batch), 0.0), split_uniforms(batch, 0)
    )
    total, there = counts(batch)
    share = (there / total).numpy()
    return pd.DataFrame(
        {
            "condition": condition,
            "severity": severity,
            "label": batch.labels.numpy().astype(float),
            "answer": told.read("mae", "mosi").numpy().astype(float),
            "sentiment": told.sentiment.numpy().astype(float),
            "completeness": told.completeness.numpy().astype(float),
            "words": share[:, 0].astype(float),
            "audio": share[:, 1].astype(float),
            "vision": share[:, 2].astype(float),
        }
    )


def main() -> None:
    """Parse, and do."""
    parser = argparse.ArgumentParser(description=__doc__)
    actions = parser.add_subparsers(required=True)
    clips = actions.add_parser("make", help="write the clips and their table")
    clips.add_argument("folder", type=Path)
    for split, count in (("train", 2000), ("valid", 200), ("test", 200)):
        clips.add_argument(f"--{split}", type=int, default=count)
    clips.add_argument("--seed", type=int, default=0)
    clips.set_defaults(run=make)
    rows = actions.add_parser(
        "features", help="extract the features of such clips"
    )
    rows.add_argument("table", type=Path)
    rows.add_argument("out", type=Path)
    rows.set_defaults(run=features)
    few = actions.add_parser("ship", help="write the clips of the book")
    few.add_argument("clips", type=Path)
    few.add_argument("out", type=Path)
    few.set_defaults(run=ship)
    wrong = actions.add_parser("faults", help="score the clips with faults")
    wrong.add_argument("table", type=Path)
    wrong.add_argument("run_folder", type=Path, metavar="RUN")
    wrong.add_argument("out", type=Path)
    wrong.add_argument("--seed", type=int, default=0)
    wrong.add_argument("--most", type=int, help="of the test clips")
    wrong.set_defaults(run=faults)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.run(options)


if __name__ == "__main__":
    main()
