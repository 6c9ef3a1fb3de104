"""`lnln train`: its options, and the settings they make."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from lnln.data.batch import Reading
from lnln.data.errors import SettingsError
from lnln.data.mmsa.labels import LIMITS
from lnln.data.opening import Source, open_source
from lnln.evaluation.describe import said
from lnln.missing.corruption import CORRUPTIONS
from lnln.models import METHODS
from lnln.models.blocks.encoder import EncoderConfig
from lnln.models.method import PARTS, RELEASED_CHOICES, ModelConfig, Variant
from lnln.paper.tuning.study import read_best
from lnln.training.devices import is_first
from lnln.training.loop import train
from lnln.training.presets import PRESETS, as_released, preset_for
from lnln.training.run import outline
from lnln.training.settings import (
    CHOICES,
    Preset,
    TrainConfig,
    help_of,
    with_settings,
    with_train,
)

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_DATA_HELP = (
    "'simulated' (or simulated:mini, simulated:full), or the path of an MMSA pickle "
    "file; simulated data need no download"
)


def seed_number(text: str) -> int:
    """A seed as an option's value: a whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name data."""
    parser.add_argument("--data", help=_DATA_HELP)
    parser.add_argument(
        "--train-size", type=int, help="utterances of a simulated training split"
    )
    parser.add_argument(
        "--data-seed", type=seed_number, help="of simulated data (default 0)"
    )
    add_reading_options(parser)


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a file does not."""
    parser.add_argument(
        "--scheme",
        choices=sorted(LIMITS),
        help="of a file's labels: mosi (in [-3, 3]) or sims ([-1, 1]); by default "
        "decided by their range",
    )
    parser.add_argument(
        "--transcripts",
        metavar="FILE.csv",
        help="the words of a file that has none: a table with the columns id and text "
        "(or video_id, clip_id and text)",
    )
    parser.add_argument(
        "--valid-share",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="for a file without validation split: take this share of the training "
        "split, by video, such as 0.1",
    )


def reading_of(options: argparse.Namespace, encoder: str | None) -> Reading:
    """What the options say about a file.

    Args:
        options: with those of `add_reading_options`.
        encoder: the text encoder whose token ids are wanted, if that is known.
    """
    # Absolute, since other machines and later commands start elsewhere.
    if encoder is not None and Path(encoder).is_dir():
        encoder = str(Path(encoder).absolute())
    table = options.transcripts
    transcripts = None if table is None else str(Path(table).absolute())
    return Reading(options.scheme, encoder, transcripts, options.valid_share)


def add_corruption_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names what is done to the test split."""
    parser.add_argument(
        "--corruption",
        choices=sorted(CORRUPTIONS),
        default="random",
        help="; ".join(f"{name}: {c.severity}" for name, c in CORRUPTIONS.items()),
    )


def add_train(commands: Subparsers) -> None:
    """Add the command to the others."""
    parser = commands.add_parser(
        "train",
        help="train a method and write a run folder",
        description="Train LNLN, or one of the methods that it is compared with. "
        "Options that are not given keep the preset's value. On several GPUs: "
        "torchrun --nproc-per-node 4 --no-python lnln train ...",
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), default="mini")
    parser.add_argument(
        "--method",
        default="lnln",
        metavar="METHOD",
        help=f"{', '.join(METHODS)}, or a class of your own, as my_module:MyMethod "
        "(default: lnln)",
    )
    add_data_options(parser)
    parser.add_argument(
        "--out", type=Path, help="folder of the run (default runs/PRESET-SEED)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in that folder"
    )
    parser.add_argument(
        "--encoder", help="text encoder: a local folder, or a hub name (downloads it)"
    )
    parser.add_argument(
        "--freeze-encoder", action="store_true", help="do not fine-tune the encoder"
    )
    meaning = help_of(EncoderConfig)
    for name, kind in (("width", int), ("depth", int), ("dropout", float)):
        text = f"of a text encoder from scratch: {meaning[name]}"
        parser.add_argument(f"--encoder-{name}", type=kind, help=text)
    parser.add_argument(
        "--variant",
        help="paper (default); released: network, schedule, masks and selection of the "
        "released program; or one of them with +CHOICE for some of "
        + ", ".join(sorted(RELEASED_CHOICES))
        + " and -PART for some of "
        + ", ".join(sorted(PARTS)),
    )
    parser.add_argument("--dropout", type=float, help="of the network")
    add_settings(parser, [field.name for field in fields(TrainConfig)])
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="NAME.json of lnln tune: what it found; other options go before it",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument(
        "--save-minutes",
        type=float,
        default=5.0,
        metavar="N",
        help="what a killed run may lose (default 5); 0 writes the state each epoch",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what it would do, no more"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_train)


def add_settings(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Add options for fields of `TrainConfig`, which names and explains them."""
    kinds, meaning = get_type_hints(TrainConfig), help_of(TrainConfig)
    for name in names:
        option = f"--{name.replace('_', '-')}"
        text, _, _ = meaning[name].partition(", see `")
        if (known := CHOICES.get(name)) is not None:
            text += ". " + "; ".join(f"{k}: {v}" for k, v in sorted(known.items()))
            parser.add_argument(option, choices=sorted(known), help=text)
        elif kinds[name] is bool:
            action = argparse.BooleanOptionalAction
            parser.add_argument(option, action=action, default=None, help=text)
        elif kinds[name] == tuple[float, ...]:
            parser.add_argument(option, type=float, nargs="+", metavar="R", help=text)
        elif kinds[name] == tuple[str, ...]:
            text += "; as letters, such as 'l' for language only"
            parser.add_argument(option, type=tuple, metavar="LETTERS", help=text)
        else:
            kind = seed_number if name == "seed" else kinds[name]
            parser.add_argument(option, type=kind, metavar="N", help=text)


def changed(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of `TrainConfig` that the options set."""
    given = vars(options)
    values = {f.name: given.get(f.name) for f in fields(TrainConfig)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None
    }


def is_simulated(options: argparse.Namespace) -> bool:
    """Whether the options name simulated data."""
    return options.data is None or options.data.startswith("simulated")


def source_for(options: argparse.Namespace) -> Source:
    """Where the data are that the options name; simulated ones for the preset mini.

    Raises:
        SettingsError: another preset needs a file.
    """
    if options.data is None and options.preset != "mini":
        raise SettingsError(
            f"preset {options.preset} needs --data FILE (see data/README.md), "
            "or --data simulated"
        )
    spec = options.data or "simulated"
    if not is_simulated(options):
        refuse(options, ("train_size", "data_seed"), "is for simulated data only")
        spec = str(Path(spec).absolute())
    encoder = options.encoder or PRESETS[options.preset].model.encoder.name
    return Source(
        spec,
        options.preset,
        options.train_size,
        options.data_seed or 0,
        reading=reading_of(options, encoder),
    )


def refuse(options: argparse.Namespace, names: Sequence[str], reason: str) -> None:
    """Say that options would have no effect, where they are given.

    Raises:
        SettingsError: one of them is given.
    """
    for name in names:
        if getattr(options, name) is not None:
            raise SettingsError(f"--{name.replace('_', '-')} {reason}; leave it out")


def _preset(options: argparse.Namespace) -> Preset:
    preset = preset_for(options.method, options.preset)
    if is_simulated(options) and preset.model.encoder.name is not None:
        # The corpus has its own vocabulary, which no pretrained encoder knows.
        own = PRESETS["mini"].model.encoder
        preset = replace(preset, model=replace(preset.model, encoder=own))
    if options.settings is not None:
        preset = _tuned(preset, options.settings)
    variant = Variant() if options.variant is None else Variant.parse(options.variant)
    if variant.released == RELEASED_CHOICES.keys():
        preset = as_released(preset)
    if options.variant is not None:
        preset = replace(preset, model=replace(preset.lnln, variant=variant))
    model: ModelConfig = preset.model
    if options.dropout is not None:
        model = replace(preset.lnln, dropout=options.dropout)
    preset = with_train(replace(preset, model=model), **changed(options))
    if preset.train.selection == "released":
        refuse(options, ("patience",), "has no effect: 'released' never stops early")
    if preset.train.masks == "realised" and options.method != "lnln":
        raise SettingsError("--masks realised is for LNLN, which learns completeness")
    return preset


def _tuned(preset: Preset, path: Path) -> Preset:
    best = read_best(path)
    if best["method"] != preset.model.method:
        raise SettingsError(
            f"{path} has settings of {best['method']}; add --method {best['method']}"
        )
    return with_settings(with_train(preset, answer=best["answer"]), best["settings"])


def _encoder(options: argparse.Namespace, encoder: EncoderConfig) -> EncoderConfig:
    changes: dict[str, Any] = {}
    name = encoder.name if options.encoder is None else options.encoder
    if name is not None:
        changes["name"] = name
        sizes = ("encoder_width", "encoder_depth", "encoder_dropout")
        refuse(options, sizes, f"is for an encoder from scratch; this one is {name}")
    if options.freeze_encoder:
        changes["frozen"] = True
    if options.encoder_depth is not None:
        changes["depth"] = options.encoder_depth
    if options.encoder_dropout is not None:
        changes["dropout"] = options.encoder_dropout
    if (width := options.encoder_width) is not None:
        # Heads of about 16 and a feed-forward part twice as wide, as in preset mini.
        most = max(1, width // 16)
        heads = max(h for h in range(1, most + 1) if width % h == 0)
        changes |= {"width": width, "heads": heads, "ffn_width": 2 * width}
    return replace(encoder, **changes)


def _silent(*_: object) -> None:
    """What the other processes of torchrun say."""


def _train(options: argparse.Namespace) -> int:
    preset = _preset(options)
    dataset = open_source(source_for(options))
    encoder = _encoder(options, preset.model.encoder)
    model = replace(preset.model, encoder=encoder)
    preset = replace(preset, model=model)
    folder = options.out or Path("runs") / f"{preset.name}-{preset.train.seed}"
    say = print if is_first() else _silent
    for line in said(dataset):
        say(line)
    if preset.train.standardize:
        say("audio and vision columns are standardised with training statistics")
    if options.dry_run:
        say(outline(preset.fit_to(dataset), dataset, folder))
        return 0
    record = train(
        preset,
        dataset,
        folder,
        resume=options.resume,
        device=options.device,
        progress=not options.quiet,
        save_minutes=options.save_minutes,
    )
    best = record["best"]["validation"]
    say(
        f"{folder}: {len(record['history'])} epochs in {record['seconds']:.0f} s on "
        f"{record['device']}; best validation MAE {best['score']:.3f} (epoch "
        f"{best['epoch']})\nselected: {record['selection_rule']}\n"
        f"next: lnln evaluate {folder}"
    )
    return 0
