"""`lnln features`: a table of clips to a file of features."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lnln.cli import Subparsers
from lnln.data.errors import SettingsError
from lnln.data.files import imported
from lnln.data.mmsa.reader import write_mmsa
from lnln.features.audio import AUDIO
from lnln.features.extraction import extract
from lnln.features.vision import (
    OPENFACE_SETS,
    MediaPipe,
    NoPicture,
    OpenFace,
    Table,
    Vision,
)

_VISION = ("openface", "table", "mediapipe", "none")
_OPENFACE = ("openface_columns", "openface_fps", "openface_version", "pool")


def add_features(commands: Subparsers) -> None:
    """Add the command to the others."""
    parser = commands.add_parser(
        "features",
        help="make a file of features from your own clips",
        description="Make a file of features from clips (needs lnln[features]). The "
        "table has one row a clip: clip (path of the media file, relative to the "
        "table), and perhaps id, split, label, start, end, text or words (a file), "
        "openface, table. What is really missing, such as muted sound, gets the form "
        "of what training erases.",
    )
    parser.add_argument("clips", type=Path, metavar="CLIPS.csv", help="table of clips")
    parser.add_argument(
        "--out", type=Path, required=True, help="file to write, e.g. own.pkl"
    )
    parser.add_argument(
        "--audio",
        choices=AUDIO,
        default="plain",
        help="plain: 17 columns, nothing to install; sims: the 33 of CH-SIMS (needs "
        "librosa); egemaps: 25 (needs opensmile, not for commercial use)",
    )
    parser.add_argument(
        "--vision",
        metavar="NAME",
        help="openface, table: files named in the table of clips; mediapipe: needs "
        "the package and --face-model; my_module:MyFace: an extractor of your own; "
        "none (default: by the columns of the table)",
    )
    parser.add_argument(
        "--openface-columns",
        choices=tuple(OPENFACE_SETS),
        help="action units, with pose (default), with landmarks too (177), or all 709",
    )
    parser.add_argument(
        "--openface-fps",
        type=float,
        metavar="N",
        help="pictures a second of OpenFace files that were made from image folders",
    )
    parser.add_argument(
        "--openface-version", help="version of OpenFace, for the record"
    )
    parser.add_argument(
        "--pool",
        type=int,
        metavar="N",
        help="rows of N of OpenFace's frames, as 5 in CH-SIMS (default: by time)",
    )
    parser.add_argument(
        "--face-model",
        type=Path,
        metavar="FILE",
        help="MediaPipe's face_landmarker.task",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=12.5,
        metavar="R",
        help="rows a second of vision and of --audio plain; divides 50 (default 12.5)",
    )
    parser.add_argument(
        "--encoder",
        default="bert-base-uncased",
        metavar="NAME",
        help="text encoder (a local folder, or a hub name) whose tokenizer splits the "
        "words, or 'simulated' for a model of the simulated corpus (default "
        "bert-base-uncased)",
    )
    parser.add_argument(
        "--unclear",
        type=float,
        default=0.5,
        metavar="P",
        help="words of a lower confidence count as not understood (default 0.5)",
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out clips that cannot be read, list them, and end with status 1",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_features)


def _vision(options: argparse.Namespace) -> Vision | None:
    given = {n: v for n in _OPENFACE if (v := getattr(options, n)) is not None}
    if options.vision != "openface" and given:
        raise SettingsError(
            f"--{min(given).replace('_', '-')} is for --vision openface; leave it out"
        )
    if (options.vision == "mediapipe") != (options.face_model is not None):
        raise SettingsError(
            "--vision mediapipe and --face-model FILE go together; give both (the file "
            "is MediaPipe's face_landmarker.task) or none"
        )
    if options.vision == "openface":
        names = {
            "openface_columns": "columns",
            "openface_fps": "fps",
            "openface_version": "program",
            "pool": "pool",
        }
        return OpenFace(**{names[name]: value for name, value in given.items()})
    if options.vision == "table":
        return Table()
    if options.vision == "mediapipe":
        return MediaPipe(options.face_model)
    if options.vision in _VISION:
        return NoPicture()
    return None if options.vision is None else _own(options.vision)


def _own(name: str) -> Vision:
    """An extractor of the reader's own, made of module:Class without arguments."""
    kind = imported(name, "vision", _VISION)
    try:
        made: Vision = kind()
    except TypeError as error:
        raise SettingsError(
            f"vision {name!r} cannot be made ({error}); let the class need no arguments"
        ) from error
    return made


def _features(options: argparse.Namespace) -> int:
    if options.out.absolute() == options.clips.absolute():
        raise SettingsError(f"{options.out}: is the table itself; name another file")
    made = extract(
        options.clips,
        audio=options.audio,
        vision=_vision(options),
        encoder=options.encoder,
        rate=options.rate,
        unclear=options.unclear,
        skip_bad=options.skip_bad,
        progress=not options.quiet,
    )
    write_mmsa(made.dataset, options.out)
    for note in made.notes:
        print(f"noted: {note}")
    sizes = {name: len(split) for name, split in made.dataset.splits.items()}
    batch = next(iter(made.dataset.splits.values())).batch
    print(
        f"{options.out}: {', '.join(f'{n} {name}' for name, n in sizes.items())}; "
        f"audio {batch.audio.shape[2]} columns, vision {batch.vision.shape[2]}\n"
        f"next: lnln data check {options.out}"
    )
    for fault in made.bad:
        print(f"left out: {fault}", file=sys.stderr)
    return 1 if made.bad else 0
