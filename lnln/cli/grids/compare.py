"""`lnln compare`: several methods, one protocol, one table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lnln.cli import Subparsers
from lnln.cli.train import (
    add_corruption_option,
    add_data_options,
    add_settings,
    seed_number,
    source_for,
)
from lnln.data.batch import Dataset
from lnln.data.errors import SettingsError, require
from lnln.data.opening import open_source
from lnln.evaluation.describe import said
from lnln.evaluation.tables import write_tables
from lnln.models import TITLES, title_of
from lnln.models.blocks.encoder import EncoderConfig
from lnln.paper.grid import cells_of, run_grid
from lnln.paper.tuning.study import read_best
from lnln.training.devices import resolve_device
from lnln.training.presets import PRESETS, preset_for
from lnln.training.settings import ANSWERS, Preset, with_settings, with_train

#: What files of a method with an answer are named behind it.
_SUFFIXES = {"point": "", "distribution": ".distribution"}


def file_name(method: str, answer: str) -> str:
    """How files and folders of a method are named: a colon would not do everywhere."""
    return f"{method.replace(':', '.')}{_SUFFIXES[answer]}"


def add_compare(commands: Subparsers) -> None:
    """Add the command to the others."""
    parser = commands.add_parser(
        "compare",
        help="train and score several methods; write tables",
        description="Train and score every method with every seed on the same data and "
        "masks. What is finished is not done again; a killed grid goes on. Writes "
        "scores.csv, curves.png and the tables overall, rates, (with --modalities) "
        "modalities and (with --answers distribution) distributions as .csv, .md and "
        ".tex. Under another --corruption the same models are scored, not trained "
        "again. On simulated data the mini preset takes "
        "half a minute to 7 minutes a method and seed on a CPU.",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["all"],
        metavar="METHOD",
        help=f"all (the default), {', '.join(TITLES)}, or a class of your own, as "
        "my_module:MyMethod",
    )
    parser.add_argument(
        "--answers",
        nargs="+",
        choices=sorted(ANSWERS),
        default=["point"],
        help="what each method answers with (default: point). "
        + "; ".join(f"{name}: {what}" for name, what in ANSWERS.items()),
    )
    parser.add_argument(
        "--modalities", action="store_true", help="also all subsets of modalities"
    )
    add_grid_options(parser, "runs/compare")
    parser.set_defaults(run=_compare)


def add_grid_options(parser: argparse.ArgumentParser, out: str) -> None:
    """Add what every grid of runs takes.

    Args:
        parser: of a command.
        out: default of --out.
    """
    parser.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        default="mini",
        help="settings of network and training",
    )
    parser.add_argument(
        "--settings",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="NAME.json of lnln tune, of some of the methods: what it found for them",
    )
    add_data_options(parser)
    for name, seeds in (("--seeds", [1111, 1112, 1113]), ("--mask-seeds", [0, 1, 2])):
        parser.add_argument(name, type=seed_number, nargs="+", default=seeds)
    add_corruption_option(parser)
    parser.add_argument("--encoder", help="text encoder: a local folder or a hub name")
    add_settings(parser, ["epochs"])
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="of a dask.distributed scheduler, whose workers then run the grid; they "
        'must see --data and --out under the same paths (pip install "lnln[scale]")',
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at a time on this machine, each on one thread (default: with preset "
        "mini, without a GPU and with lnln[scale] as many as there are cores, else 1)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def jobs_of(options: argparse.Namespace) -> int:
    """How many runs at a time the options of `add_grid_options` ask for."""
    if options.jobs is not None:
        require(options, "jobs", options.jobs >= 1, "at least 1")
        return int(options.jobs)
    small = options.preset == "mini" and find_spec("distributed") is not None
    on_cpu = resolve_device(options.device).type == "cpu"
    # dask does not start processes of this kind on Windows.
    return (os.cpu_count() or 1) if small and on_cpu and os.name != "nt" else 1


def adapted(
    preset: Preset,
    options: argparse.Namespace,
    dataset: Dataset,
    settings: Mapping[str, Any] | None = None,
) -> Preset:
    """A preset with the text encoder and the epochs that the options ask for.

    Args:
        preset: of any method.
        options: with those of `add_grid_options`.
        dataset: what it trains on; the simulated corpus has a vocabulary of its own,
            which no pretrained encoder knows.
        settings: changes of the preset, see `with_settings`.
    """
    encoder = preset.model.encoder
    if options.encoder is not None:
        encoder = EncoderConfig(name=options.encoder)
    elif dataset.name == "simulated" and encoder.name is not None:
        encoder = PRESETS["mini"].model.encoder
    preset = replace(preset, model=replace(preset.model, encoder=encoder))
    preset = with_settings(preset, settings or {})
    if options.epochs is None:
        return preset
    return with_train(preset, epochs=options.epochs, patience=options.epochs)


def tuned(
    paths: Sequence[Path], wanted: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, Any]]:
    """{(method, answer): settings} of what `lnln tune` wrote.

    Args:
        paths: of its files.
        wanted: methods and answers that can have settings.

    Raises:
        SettingsError: a file is no such file, or of another method or answer.
    """
    found = {}
    for path in paths:
        best = read_best(path)
        key = (best["method"], best["answer"])
        if key not in wanted:
            raise SettingsError(
                f"{path} has settings of {title_of(*key)}, which is not trained here; "
                "leave it out"
            )
        found[key] = best["settings"]
    return found


def _compare(options: argparse.Namespace) -> int:
    source = source_for(options)
    dataset = open_source(source)
    for line in said(dataset):
        print(line)
    source = replace(source, sha256=dataset.sha256)
    methods = list(TITLES) if "all" in options.methods else options.methods
    names = {
        file_name(method, answer): (method, answer)
        for method in methods
        for answer in options.answers
    }
    settings = tuned(options.settings, list(names.values()))
    presets = {
        name: with_train(
            adapted(
                preset_for(method, options.preset),
                options,
                dataset,
                settings.get((method, answer)),
            ),
            answer=answer,
        )
        for name, (method, answer) in names.items()
    }
    cells = cells_of(
        presets,
        source,
        options.out,
        options.seeds,
        mask_seeds=options.mask_seeds,
        subsets=options.modalities,
        corruption=options.corruption,
        device=options.device,
    )
    paths = run_grid(
        cells,
        progress=not options.quiet,
        cluster=options.cluster,
        jobs=jobs_of(options),
    )
    kind = options.corruption
    titles = {
        name: title_of(method, answer) for name, (method, answer) in names.items()
    }
    print(write_tables(paths, options.out, dataset.scheme, titles, corruption=kind))
    return 0
