"""`lnln tune`: the same search for settings, whatever the method."""

from __future__ import annotations

import argparse
from pathlib import Path

from lnln.cli import Subparsers
from lnln.cli.grids.compare import adapted, file_name
from lnln.cli.train import (
    add_reading_options,
    add_settings,
    is_simulated,
    seed_number,
    source_for,
)
from lnln.data.batch import Dataset
from lnln.data.opening import open_source
from lnln.evaluation.describe import said
from lnln.models import TITLES, title_of
from lnln.paper.tuning.space import space_of
from lnln.paper.tuning.study import CORPORA, Tuning, fresh_corpora, tune
from lnln.training.devices import resolve_device
from lnln.training.presets import PRESETS, preset_for
from lnln.training.settings import with_train


def add_tune(commands: Subparsers) -> None:
    """Add the command to the others."""
    parser = commands.add_parser(
        "tune",
        help="search the settings of a method; print the best",
        description="Search learning rates, weight decay, dropout, batch size, moving "
        "average, epochs and the method's own loss weights for the best validation "
        "MAE. All methods are searched alike, and none starts from its preset. A "
        "killed search goes on where it was, and ends as if it had not been. Writes "
        "NAME.csv "
        "(every trial's settings, curve, score, cost), NAME.json (the best settings, "
        "for lnln train --settings) and NAME.journal (Optuna's study). "
        'Needs pip install "lnln[tune]".',
    )
    parser.add_argument(
        "--method",
        default="lnln",
        metavar="METHOD",
        help=f"{', '.join(TITLES)}, or a class of your own, as my_module:MyMethod, "
        "whose `tuned` names its own settings (default: lnln)",
    )
    parser.add_argument(
        "--trials", type=int, default=24, metavar="N", help="how many (default 24)"
    )
    parser.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        default="mini",
        help="sizes of the network, and what is not searched",
    )
    seeds = ", ".join(map(str, CORPORA))
    parser.add_argument(
        "--data",
        help="'simulated' (the default at mini: corpora of the seeds "
        f"{seeds}, used for nothing else), or the path of a file of features, whose "
        "validation split is scored",
    )
    parser.add_argument(
        "--train-size", type=int, help="utterances of a simulated training split"
    )
    add_reading_options(parser)
    parser.add_argument("--encoder", help="text encoder: a local folder or a hub name")
    add_settings(parser, ["answer"])
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="of all trials; else they are searched"
    )
    parser.add_argument(
        "--seed",
        type=seed_number,
        default=CORPORA[0],
        metavar="N",
        help=f"of proposals and trainings (default {CORPORA[0]})",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/tuning"))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_tune, data_seed=None)


def _data(options: argparse.Namespace) -> Dataset:
    source = source_for(options)
    if not is_simulated(options):
        return open_source(source)
    _, _, size = source.spec.partition(":")
    small = "mini" if options.preset == "mini" else "full"
    return fresh_corpora(size or small, source.train_size)


def _tune(options: argparse.Namespace) -> int:
    resolve_device(options.device)  # before the data are read, which can take long
    method, answer = options.method, options.answer or "point"
    preset = preset_for(method, options.preset)
    dataset = _data(options)
    for line in said(dataset):
        print(line)
    preset = with_train(
        adapted(preset, options, dataset), answer=answer, seed=options.seed
    )
    name = file_name(method, answer)
    tuning = Tuning(
        name,
        preset,
        space_of(preset, options.epochs),
        dataset,
        options.out,
        options.trials,
        options.seed,
        options.device,
    )
    best = tune(tuning, progress=not options.quiet)
    for setting, value in best["settings"].items():
        print(f"  {setting:24} {value:g}")
    data = "" if options.data is None else f"--data {options.data} "
    print(
        f"{title_of(method, answer)}: best validation MAE {best['score']:.3f}, trial "
        f"{best['trial'] + 1} of {best['trials']} ({best['pruned']} pruned, "
        f"{best['failed']} failed); {best['cpu_seconds']:.0f} s of CPU in all\n"
        f"next: lnln train --preset {options.preset} {data}--method {method} "
        f"--settings {tuning.path('.json')}"
    )
    return 0
