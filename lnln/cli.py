"""The `lnln` command: doctor, data, train, evaluate."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnln import __version__, check
from lnln import evaluation as ev
from lnln.checkpoint import CheckpointError
from lnln.config import PRESETS, SELECTIONS, EncoderConfig, Preset
from lnln.corpus import simulate
from lnln.data import DataError, Dataset
from lnln.linear import fit_linear
from lnln.missing import TEST_RATES
from lnln.mmsa import read_mmsa, write_mmsa
from lnln.mmsa_report import describe
from lnln.plot import robustness_figure, save_figure
from lnln.run import resolve_device
from lnln.training import TrainingError, train, with_train

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_DATA_HELP = (
    "'simulated' (or simulated:mini, simulated:full), or the path of an MMSA pickle "
    "file; simulated data need no download"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; user errors become one line on stderr and status 1."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("\nlnln: interrupted; go on with --resume", file=sys.stderr)
        return 130
    except (CheckpointError, DataError, TrainingError, ValueError, OSError) as error:
        print(f"lnln: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lnln",
        description="Train, evaluate and understand LNLN, a network for multimodal "
        "sentiment analysis with incomplete data.",
        epilog="Start with: lnln train --preset mini --out runs/mini",
    )
    parser.add_argument("--version", action="version", version=f"lnln {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_doctor(commands)
    _add_data(commands)
    _add_train(commands)
    _add_evaluate(commands)
    return parser


def _add_doctor(commands: Subparsers) -> None:
    doctor = commands.add_parser(
        "doctor", help="check this installation, one OK or FAIL line per requirement"
    )
    doctor.add_argument(
        "--encoder", help="also check a text encoder: a hub name or a local folder"
    )
    doctor.set_defaults(run=_doctor)


def _add_data(commands: Subparsers) -> None:
    data = commands.add_parser("data", help="check or simulate a data file")
    actions = data.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check", help="print splits, shapes, lengths, labels, what was mended, SHA-256"
    )
    check.add_argument("file", type=Path, help="MMSA pickle file (never executed)")
    check.add_argument(
        "--scheme", choices=("mosi", "sims"), help="label scheme, if it is misjudged"
    )
    check.set_defaults(run=_data_check)
    simulate = actions.add_parser(
        "simulate", help="write the simulated corpus as an MMSA pickle file"
    )
    simulate.add_argument("file", type=Path, help="file to write, e.g. corpus.pkl")
    simulate.add_argument("--size", choices=("mini", "full"), default="full")
    simulate.add_argument("--seed", type=int, default=0)
    simulate.set_defaults(run=_data_simulate)


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help=_DATA_HELP)
    parser.add_argument(
        "--train-size", type=int, help="utterances of a simulated training split"
    )
    parser.add_argument(
        "--data-seed", type=int, default=0, help="seed of simulated data (default 0)"
    )


def _add_train(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "train",
        help="train LNLN and write a run folder",
        description="Train LNLN. Options that are not given keep the preset's value.",
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), default="mini")
    _add_data_options(parser)
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
    parser.add_argument(
        "--encoder-width", type=int, help="of a text encoder from scratch (default 32)"
    )
    parser.add_argument(
        "--encoder-depth", type=int, help="of a text encoder from scratch (default 1)"
    )
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--weight-decay", type=float)
    parser.add_argument(
        "--dropout",
        type=float,
        help="of the network and of a text encoder from scratch",
    )
    parser.add_argument("--ema", type=float, help="moving average of weights; 0: none")
    parser.add_argument("--patience", type=int, help="epochs without improvement")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--modalities",
        help="available modalities, e.g. 'l' for language only (default lav)",
    )
    parser.add_argument(
        "--selection",
        choices=sorted(SELECTIONS),
        help="; ".join(f"{k}: {v}" for k, v in sorted(SELECTIONS.items())),
    )
    parser.add_argument(
        "--no-standardize", action="store_true", help="feed audio and vision raw"
    )
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast (CUDA)")
    parser.add_argument("--compile", action="store_true", help="torch.compile (CUDA)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_train)


def _add_evaluate(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="sweep a run over the missing rates",
        description="Evaluate a run at r = 0, 0.1 ... 0.9 and 1 under three mask "
        "seeds; writes robustness.csv (tidy) and robustness.png into the run folder, "
        "with the majority floor and, on simulated data, the Bayes limit.",
    )
    parser.add_argument("folder", type=Path, help="a run folder of lnln train")
    _add_data_options(parser)
    parser.add_argument("--split", choices=("train", "valid", "test"), default="test")
    parser.add_argument(
        "--modalities",
        action="store_true",
        help="also all seven subsets of modalities, the others missing entirely",
    )
    parser.add_argument(
        "--mask-seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED"
    )
    parser.add_argument(
        "--linear", action="store_true", help="also fit and evaluate ridge regression"
    )
    parser.add_argument(
        "--out", type=Path, help="folder to write to (default: the run)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_evaluate)


def _doctor(options: argparse.Namespace) -> int:
    return check.main(["--encoder", options.encoder] if options.encoder else [])


def _data_check(options: argparse.Namespace) -> int:
    print(describe(read_mmsa(options.file, scheme=options.scheme)))
    return 0


def _data_simulate(options: argparse.Namespace) -> int:
    write_mmsa(simulate(options.size, options.seed), options.file)
    print(f"{options.file}: simulated corpus, size {options.size}, seed {options.seed}")
    return 0


def open_data(
    spec: str, preset: str = "mini", train_size: int | None = None, seed: int = 0
) -> Dataset:
    """Open data as the commands name them.

    Args:
        spec: "simulated", "simulated:mini", "simulated:full" or a file's path.
        preset: "simulated" alone means size mini for preset mini, else full.
        train_size, seed: of simulated data.

    Returns:
        The dataset.

    Raises:
        DataError: the file is missing or faulty.
        ValueError: train_size is given for a file.
    """
    kind, _, size = spec.partition(":")
    if kind == "simulated":
        size = size or ("mini" if preset == "mini" else "full")
        return simulate(size, seed, train_size)
    if train_size is not None:
        raise ValueError("--train-size is for simulated data only")
    return read_mmsa(spec)


def _preset(options: argparse.Namespace) -> Preset:
    preset = PRESETS[options.preset]
    names = (
        "epochs",
        "batch_size",
        "learning_rate",
        "weight_decay",
        "patience",
        "ema",
        "seed",
        "selection",
    )
    changes = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    if options.modalities is not None:
        changes["modalities"] = tuple(options.modalities)
    changes |= {name: True for name in ("bf16", "compile") if getattr(options, name)}
    if options.no_standardize:
        changes["standardize"] = False
    model = preset.model
    if options.dropout is not None:
        model = replace(model, dropout=options.dropout)
    model = replace(model, encoder=_encoder(options, model.encoder))
    return with_train(replace(preset, model=model), **changes)


def _encoder(options: argparse.Namespace, encoder: EncoderConfig) -> EncoderConfig:
    changes: dict[str, Any] = {}
    if options.encoder is not None:
        changes["name"] = options.encoder
    if options.freeze_encoder:
        changes["frozen"] = True
    if options.encoder_depth is not None:
        changes["depth"] = options.encoder_depth
    if (width := options.encoder_width) is not None:
        # Heads of 16 and a feed-forward part twice as wide, as in preset mini.
        changes |= {"width": width, "heads": width // 16, "ffn_width": 2 * width}
    return replace(encoder, **changes)


def _train(options: argparse.Namespace) -> int:
    preset = _preset(options)
    if options.data is None and options.preset != "mini":
        raise ValueError(
            f"preset {options.preset} needs --data FILE (see data/README.md), "
            "or --data simulated"
        )
    data = options.data or "simulated"
    dataset = open_data(data, options.preset, options.train_size, options.data_seed)
    if dataset.name == "simulated" and options.encoder is None:
        # The corpus has its own vocabulary, which no pretrained encoder knows.
        small = _encoder(options, PRESETS["mini"].model.encoder)
        preset = replace(preset, model=replace(preset.model, encoder=small))
    folder = options.out or Path("runs") / f"{preset.name}-{preset.train.seed}"
    for sentence in dataset.mended:
        print(f"mended: {sentence}")
    if preset.train.standardize:
        print("audio and vision columns are standardised with training statistics")
    record = train(
        preset,
        dataset,
        folder,
        resume=options.resume,
        device=options.device,
        progress=not options.quiet,
    )
    best = record["best"]["validation"]
    print(
        f"{folder}: {len(record['history'])} epochs in {record['seconds']:.0f} s on "
        f"{record['device']}; best validation MAE {best['score']:.3f} (epoch "
        f"{best['epoch']})\nselected: {record['selection_rule']}\n"
        f"next: lnln evaluate {folder}"
    )
    return 0


def _evaluation_data(options: argparse.Namespace, trained_on: str) -> Dataset:
    if options.data is not None:
        return open_data(
            options.data, train_size=options.train_size, seed=options.data_seed
        )
    if trained_on.startswith("simulate("):
        values = trained_on.removeprefix("simulate(").removesuffix(")").split(", ")
        call = {
            k: json.loads(v.replace("'", '"'))
            for k, v in (x.split("=") for x in values)
        }
        return simulate(**call)
    return open_data(trained_on)


def _evaluate(options: argparse.Namespace) -> int:
    record = ev.load_record(options.folder)
    dataset = _evaluation_data(options, record["data"]["source"])
    modalities = tuple(record["preset"]["train"]["modalities"])
    wanted = ev.conditions((*TEST_RATES, 1.0), options.modalities, modalities)
    common = {"split": options.split, "mask_seeds": options.mask_seeds}
    rows = ev.evaluate(
        options.folder,
        dataset,
        wanted,
        device=str(resolve_device(options.device)),
        progress=not options.quiet,
        **common,
    )
    method = rows[0]["method"]
    linear = fit_linear(dataset) if options.linear else None
    rows += ev.reference_rows(dataset, wanted, linear=linear, **common)
    out = options.out or options.folder
    ev.write_csv(out / "robustness.csv", rows)
    headline = (
        ("mae", "acc2", "f1")
        if dataset.scheme == "sims"
        else ("mae", "acc2_neg_pos", "acc7")
    )
    title = f"{method} on {dataset.name} data ({options.split}), {record['device']}"
    rule = f"epoch chosen by: {record['selection_rule']}"
    available = "".join(modalities)
    figure = robustness_figure(rows, headline, f"{title}\n{rule}", available)
    save_figure(figure, out / "robustness.png")
    print(f"{title}\n{rule}\nmean over mask seeds {options.mask_seeds}")
    print(ev.table(rows, method, dataset.scheme, available))
    print(f"{out / 'robustness.csv'}\n{out / 'robustness.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
