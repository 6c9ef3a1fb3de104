"""`lnln data`: check a file, convert it, or write the simulated corpus."""

from __future__ import annotations

import argparse
from pathlib import Path

from lnln.cli import Subparsers
from lnln.cli.train import add_reading_options, reading_of, seed_number
from lnln.data.batch import DataError
from lnln.data.mmsa.reader import convert, read_mmsa, record_path, write_mmsa
from lnln.data.simulated.corpus import simulate
from lnln.evaluation.describe import describe, said

_FILE_HELP = "pickle file of features (never executed), see data/README.md"


def add_data(commands: Subparsers) -> None:
    """Add the command to the others."""
    data = commands.add_parser("data", help="check, convert or simulate a data file")
    actions = data.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check", help="print splits, shapes, lengths, labels, what was mended, SHA-256"
    )
    check.add_argument("file", type=Path, help=_FILE_HELP)
    _add_options(check)
    check.set_defaults(run=_check)
    rewrite = actions.add_parser(
        "convert",
        help="write any file that can be read as a clean MMSA file",
        description="Write any file that can be read as a clean MMSA file, with a "
        "record of what was done beside it (the same name, ending in .json).",
    )
    rewrite.add_argument("file", type=Path, help=_FILE_HELP)
    rewrite.add_argument("out", type=Path, help="file to write, e.g. clean.pkl")
    _add_options(rewrite)
    rewrite.set_defaults(run=_convert)
    simulated = actions.add_parser(
        "simulate", help="write the simulated corpus as an MMSA pickle file"
    )
    simulated.add_argument("file", type=Path, help="file to write, e.g. corpus.pkl")
    simulated.add_argument("--size", choices=("mini", "full"), default="full")
    simulated.add_argument("--seed", type=seed_number, default=0)
    simulated.set_defaults(run=_simulate)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_reading_options(parser)
    parser.add_argument(
        "--encoder",
        help="text encoder (a local folder, or a hub name) whose tokenizer makes token "
        "ids where the file has words only, and must fit those that it has",
    )


def _check(options: argparse.Namespace) -> int:
    reading = reading_of(options, options.encoder)
    try:
        print(describe(read_mmsa(options.file, **reading.to_dict())))
    except DataError as error:
        values = {**reading.to_dict(), "valid_share": 0.0}
        try:
            clips = read_mmsa(options.file, **values, labelled=False)
        except DataError:
            raise error from None
        if not clips.features:
            raise
        print(f"{describe(clips)}\n\nfor lnln predict only; to train: {error}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    reading = reading_of(options, options.encoder)
    dataset = convert(options.file, options.out, reading)
    for line in said(dataset):
        print(line)
    print(f"{options.out}: {dataset.layout}, scored as {dataset.scheme}")
    print(f"{record_path(options.out)}: what was done")
    return 0


def _simulate(options: argparse.Namespace) -> int:
    write_mmsa(simulate(options.size, options.seed), options.file)
    print(f"{options.file}: simulated corpus, size {options.size}, seed {options.seed}")
    return 0
