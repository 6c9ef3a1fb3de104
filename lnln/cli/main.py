"""The `lnln` command: its parser, and `lnln evaluate`."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from lnln import __version__
from lnln.cli import Subparsers
from lnln.cli.doctor import add_doctor
from lnln.cli.files.data import add_data
from lnln.cli.files.features import add_features
from lnln.cli.files.predict import add_predict
from lnln.cli.grids.compare import add_compare
from lnln.cli.grids.reproduce import add_reproduce
from lnln.cli.grids.tune import add_tune
from lnln.cli.sharing import add_sharing
from lnln.cli.train import (
    add_corruption_option,
    add_data_options,
    add_train,
    reading_of,
    refuse,
    seed_number,
)
from lnln.data.batch import Dataset, Reading
from lnln.data.errors import UserError
from lnln.data.opening import open_data, recorded_reading
from lnln.data.simulated.corpus import simulate
from lnln.evaluation import sweep as ev
from lnln.evaluation.describe import on_top, said
from lnln.evaluation.linear import fit_linear
from lnln.evaluation.plots import robustness_figure, save_figure
from lnln.evaluation.tables import plain, rate_table
from lnln.missing.corruption import file_under
from lnln.missing.erasing import TEST_RATES

#: The source of simulated data, as records of runs have it.
_SIMULATED = r"simulate\(size='(\w+)', seed=(\d+), train_size=(\d+)\)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; user errors become one line on stderr and status 1."""
    options = _parser().parse_args(arguments)
    try:
        with _stopped_as_by_ctrl_c():
            return int(options.run(options))
    except KeyboardInterrupt:
        print("\nlnln: interrupted; go on with --resume", file=sys.stderr)
        return 130
    except UserError as error:
        print(f"lnln: {error}", file=sys.stderr)
        return 1


@contextmanager
def _stopped_as_by_ctrl_c() -> Iterator[None]:
    """On SIGTERM leave as on Ctrl-C, so that a grid ends its worker processes."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals can be handled in the main thread only
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lnln",
        description="Train, evaluate and understand LNLN, a network for multimodal "
        "sentiment analysis with incomplete data.",
        epilog="Start with: lnln train --preset mini --out runs/mini",
    )
    parser.add_argument("--version", action="version", version=f"lnln {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_doctor(commands)
    add_data(commands)
    add_features(commands)
    add_train(commands)
    _add_evaluate(commands)
    add_predict(commands)
    add_tune(commands)
    add_compare(commands)
    add_reproduce(commands)
    add_sharing(commands)
    return parser


def _mask_seed(text: str) -> int | str:
    return text if text == "released" else seed_number(text)


def _add_evaluate(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="sweep a run over the missing rates",
        description="Evaluate a run at r = 0, 0.1 ... 0.9 and 1 under three mask "
        "seeds; writes robustness.csv (tidy) and robustness.png into the run folder, "
        "with the majority floor and, on simulated data, the Bayes limit.",
    )
    parser.add_argument("folder", type=Path, help="a run folder of lnln train")
    add_data_options(parser)
    parser.add_argument(
        "--encoder",
        help="folder or hub name of the text encoder, if it has moved since training "
        "and its tokenizer is needed",
    )
    parser.add_argument("--split", choices=("train", "valid", "test"), default="test")
    parser.add_argument(
        "--modalities",
        action="store_true",
        help="also all seven subsets of modalities, the others missing entirely",
    )
    parser.add_argument(
        "--mask-seeds",
        type=_mask_seed,
        nargs="+",
        default=[0, 1, 2],
        metavar="SEED",
        help="numbers, or 'released' for the masks of the released program",
    )
    add_corruption_option(parser)
    parser.add_argument(
        "--linear", action="store_true", help="also fit and evaluate ridge regression"
    )
    parser.add_argument(
        "--out", type=Path, help="folder to write to (default: the run)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_evaluate)


def _evaluation_data(options: argparse.Namespace, record: dict[str, Any]) -> Dataset:
    trained_on: str = record["data"]["source"]
    if options.data is None:
        refuse(options, ("train_size", "data_seed"), "needs --data")
    elif not options.data.startswith("simulated"):
        reason = "is for simulated data only"
        refuse(options, ("train_size", "data_seed"), reason)
    call = re.fullmatch(_SIMULATED, trained_on)
    if options.data is None and call:
        return simulate(call[1], int(call[2]), int(call[3]))
    spec = options.data or trained_on
    then = recorded_reading(record, spec)
    now = reading_of(options, options.encoder)
    reading = Reading(
        now.scheme or then.scheme,
        now.encoder or then.encoder or record["preset"]["model"]["encoder"]["name"],
        now.transcripts or then.transcripts,
        now.valid_share or then.valid_share,
    )
    return open_data(
        spec,
        train_size=options.train_size,
        seed=options.data_seed or 0,
        reading=reading,
    )


def _evaluate(options: argparse.Namespace) -> int:
    record = ev.load_record(options.folder)
    dataset = _evaluation_data(options, record)
    for line in said(dataset):
        print(line)
    if dataset.features:
        print(on_top(dataset.splits[options.split].batch, TEST_RATES))
    modalities = tuple(record["preset"]["train"]["modalities"])
    wanted = ev.conditions((*TEST_RATES, 1.0), options.modalities, modalities)
    corruption: str = options.corruption
    common = {
        "split": options.split,
        "mask_seeds": options.mask_seeds,
        "corruption": corruption,
    }
    own = ev.evaluate(
        options.folder,
        dataset,
        wanted,
        device=options.device,
        progress=not options.quiet,
        **common,
    )
    method = own["method"].iloc[0]
    linear = fit_linear(dataset, device=options.device) if options.linear else None
    references = ev.reference_rows(dataset, wanted, linear=linear, **common)
    scores = pd.concat([own, references])
    path = (options.out or options.folder) / file_under(corruption, "robustness.csv")
    ev.write_csv(path, scores)
    headline = (
        ("mae", "acc2", "f1")
        if dataset.scheme == "sims"
        else ("mae", "acc2_neg_pos", "acc7")
    )
    title = f"{method} on {dataset.name} data ({options.split}), {record['device']}"
    rule = f"epoch chosen by: {record['selection_rule']}"
    available = "".join(modalities)
    figure = robustness_figure(scores, headline, f"{title}\n{rule}", available)
    save_figure(figure, path.with_suffix(".png"))
    print(f"{title}\n{rule}\nmean over mask seeds {options.mask_seeds}")
    print(plain(rate_table(own, method, dataset.scheme, available)))
    print(f"{path}\n{path.with_suffix('.png')}")
    return 0
