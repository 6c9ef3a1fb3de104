"""`lnln export`, `share` and `report`: what is given to others."""

from __future__ import annotations

import argparse
from pathlib import Path

from lnln.cli import Subparsers
from lnln.data.errors import SettingsError
from lnln.data.files import atomic_path
from lnln.missing.corruption import CORRUPTIONS
from lnln.sharing.hub import Pretrained, from_pretrained
from lnln.sharing.report import HEADLINE, report
from lnln.training.scoring.metrics import HIGHER_IS_BETTER

_FORMS = {".tex": "latex", ".md": "markdown"}


def add_sharing(commands: Subparsers) -> None:
    """Add the three commands to the others."""
    _add_export(commands)
    _add_share(commands)
    _add_report(commands)


def _add_export(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "export",
        help="write a trained model as an ONNX file",
        description="Write a trained model as an ONNX file with free batch size and "
        "lengths. Its outputs are sentiment (of a distribution the mean), then, from a "
        "model that answers with a distribution, probabilities of the label values "
        "(which the file's metadata list), then, from LNLN, completeness. The file is "
        "compared with PyTorch in all of them. Takes about 20 seconds for mini.",
    )
    parser.add_argument(
        "model",
        help="a run folder of lnln train, a shared folder, 'mini' for the shipped "
        "model, or USER/NAME of the Hugging Face hub",
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    # Imported late: only this command needs the exporter.
    from lnln.sharing.export import export_onnx

    worst = export_onnx(from_pretrained(options.model), options.out)
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {size:.1f} MB, differs from PyTorch by at most {worst:.0e}")
    return 0


def _add_share(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "share",
        help="write a trained model with its card, or put it on the Hugging Face hub",
        description="Write what others need of a run: model.safetensors, record.json, "
        "robustness.csv if it was scored, config.json and a model card, README.md; of "
        "a method of your own its module, too. Names of your folders are left out. "
        'Anybody reads it by lnln.from_pretrained("FOLDER or USER/NAME").',
    )
    parser.add_argument("folder", type=Path, help="a run folder of lnln train")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="folder to write")
    where.add_argument(
        "--hub",
        metavar="USER/NAME",
        help="upload it there (log in before, with `hf auth login`)",
    )
    parser.add_argument(
        "--private",
        action="store_true",
        help="nobody else sees a model that --hub makes",
    )
    parser.add_argument(
        "--licence",
        metavar="NAME",
        help="of the model, as the hub calls it, such as mit or cc-by-4.0 (default: "
        "mit for simulated data; for others the card says that it is not stated)",
    )
    parser.set_defaults(run=_share)


def _share(options: argparse.Namespace) -> int:
    shared = Pretrained.of_run(options.folder, options.licence)
    if options.hub is not None:
        private = True if options.private else None
        print(shared.push_to_hub(options.hub, private=private))
        return 0
    if options.private:
        raise SettingsError("--private is for --hub; leave it out")
    if options.out.resolve() == options.folder.resolve():
        raise SettingsError(f"{options.out} is the run itself; choose another folder")
    shared.save_pretrained(options.out)
    for path in sorted(options.out.iterdir()):
        print(path)
    return 0


def _add_report(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "report",
        help="a paragraph and a table about runs, for a paper",
        description="Tell of scored runs what a paper must tell: data with SHA-256, "
        "what was missing, selection rule, seeds, training, limits, and a table with "
        "95 % intervals over training seeds. Runs differ in method and seed only: "
        "those of one method make a table by rate, those of several a line a method, "
        "with the difference in MAE, paired by seed.",
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="RUN", help="run folders, scored"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="file to write, ending in .tex or .md (default: print Markdown)",
    )
    parser.add_argument(
        "--corruption",
        choices=sorted(CORRUPTIONS),
        default="random",
        help="under which the runs were scored (default: random)",
    )
    columns = "; ".join(f"{scheme}: {' '.join(m)}" for scheme, m in HEADLINE.items())
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=sorted(HIGHER_IS_BETTER),
        metavar="METRIC",
        help=f"columns of the table, some of {', '.join(sorted(HIGHER_IS_BETTER))} "
        f"(default: {columns})",
    )
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    form = "markdown" if options.out is None else _FORMS.get(options.out.suffix)
    if form is None:
        raise SettingsError(f"{options.out}: a report is a .tex or a .md file")
    text = report(
        options.folders,
        form,
        corruption=options.corruption,
        metrics=options.metrics,
    )
    if options.out is None:
        print(text, end="")
        return 0
    with atomic_path(options.out) as draft:
        draft.write_text(text, encoding="utf-8")
    print(options.out)
    return 0
