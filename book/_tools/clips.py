"""Make spoken, drawn clips of the simulated corpus, and the features of them.

For maintainers: it calls Debian's program espeak-ng (GPL), which the project
neither depends on nor ships. Sentences and labels are those of
`lnln.simulate`, every label equally often. A robot voice speaks each (pitch,
rate and range move with the label), a face drawn in 48 x 48 pixels smiles or
frowns in some frames. The link from label to voice and mouth is invented:
nothing follows about people.

    python book/_tools/clips.py make CLIPS
    python book/_tools/clips.py features CLIPS/clips.csv own.pkl

The first makes mp4 files and their table, the second the file of features,
with the extractor of drawn faces below. Everything follows from the seed;
espeak-ng's and FFmpeg's versions may change the sound. The voices of a split
speak in no other one.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from tqdm.auto import tqdm

from lnln.data.batch import LABEL_VALUES
from lnln.data.mmsa.reader import write_mmsa
from lnln.data.simulated.corpus import simulate
from lnln.features import extract

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
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.run(options)


if __name__ == "__main__":
    main()
