"""`lnln reproduce`: one command for each table and figure of the paper."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from lnln.cli import Subparsers
from lnln.cli.grids.compare import adapted, add_grid_options, jobs_of, tuned
from lnln.cli.train import source_for
from lnln.data.batch import Dataset
from lnln.data.errors import MissingPackageError, SettingsError
from lnln.data.opening import Source, open_source
from lnln.evaluation.describe import said
from lnln.evaluation.tables import markdown
from lnln.models import TITLES
from lnln.paper.grid import Cell, cells_of, run_grid
from lnln.paper.printed import printed, side_by_side
from lnln.paper.reproduce import (
    EXHIBITS,
    compare_settings,
    expected_hours,
    number,
    plan,
    presets_of,
    write_exhibit,
)
from lnln.training.presets import PRESETS


def add_reproduce(commands: Subparsers) -> None:
    """Add the command to the others."""
    parser = commands.add_parser(
        "reproduce",
        help="repeat a table or figure of the paper",
        description="Train and score what a table or figure of the paper shows, on "
        "simulated data or on a file of yours, and print it beside the paper's "
        "numbers. Items share their runs; what is finished is not done again. Without "
        "--preset a file gets the paper's settings for its data set, and simulated "
        "data get mini.",
    )
    parser.add_argument(
        "exhibit", nargs="?", choices=sorted(EXHIBITS, key=_order), metavar="EXHIBIT"
    )
    parser.add_argument("--list", action="store_true", help="all exhibits")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be done, no more"
    )
    parser.add_argument(
        "--dataset",
        choices=["MOSI", "MOSEI", "SIMS"],
        help="whose printed numbers to show; by default that of the data, else the "
        "first that the exhibit has",
    )
    parser.add_argument(
        "--chapters",
        type=Path,
        metavar="FOLDER",
        help="of the book's chapters, in a clone of the repository; they draw Figures "
        "3 to 8",
    )
    add_grid_options(parser, "runs/reproduce")
    # Decided by the data, see `_settle`.
    parser.set_defaults(run=_reproduce, preset=None)


def _order(name: str) -> tuple[bool, int]:
    return name.startswith("figure"), number(name)


def _reproduce(options: argparse.Namespace) -> int:
    if options.list or options.exhibit is None:
        print(listing())
        return 0
    exhibit = EXHIBITS[options.exhibit]
    if options.dataset is not None and options.dataset not in exhibit.datasets:
        raise SettingsError(
            f"--dataset {options.dataset}: {options.exhibit} shows "
            f"{', '.join(exhibit.datasets) or 'no data set'} only"
        )
    if exhibit.kind == "drawing":
        print(f"{options.exhibit} is a drawing; ours opens the book")
        return 0
    if exhibit.kind == "settings":
        print(compare_settings(options.dataset or _named(options.preset) or "MOSI"))
        return 0
    source, dataset = _settle(options)
    dataset_name = options.dataset or exhibit.datasets[0]
    if options.dataset is None and dataset.name.upper() in exhibit.datasets:
        dataset_name = dataset.name.upper()
    # Runs on other data or from another preset are other runs.
    folder = options.out / f"{options.preset}-{dataset.sha256[:8]}"
    if exhibit.kind == "chapter":
        return _draw(options, source, dataset, folder)
    settings = _settings(options, exhibit.kind)
    presets, titles = presets_of(
        options.exhibit, options.preset, dataset_name, settings
    )
    presets = {name: adapted(p, options, dataset) for name, p in presets.items()}
    cells = cells_of(
        presets,
        source,
        folder,
        options.seeds,
        mask_seeds=options.mask_seeds,
        subsets=exhibit.subsets,
        corruption=options.corruption,
        device=options.device,
    )
    if options.dry_run:
        print("\n".join(plan(cells, dataset)))
        # What is estimated are the paper's epochs on the published files.
        if options.preset != "mini" and options.epochs is None:
            hours = expected_hours(presets.values(), options.preset)
            hours *= len(options.seeds)
            print(
                f"all together at most about {hours:.0f} hours on one GPU (estimated "
                "from the work, not measured; see the results page)"
            )
        return 0
    paths = run_grid(
        cells,
        progress=not options.quiet,
        cluster=options.cluster,
        jobs=jobs_of(options),
    )
    tables = folder / options.exhibit
    tables.mkdir(parents=True, exist_ok=True)
    kind = options.corruption
    ours = write_exhibit(options.exhibit, paths, tables, dataset.scheme, titles, kind)
    print(f"Ours, {options.exhibit} on {dataset.source}:\n\n{ours}\n")
    if options.exhibit.startswith("table"):
        print(f"The paper's, as printed, {dataset_name} (see chapter 27 for errors):\n")
        print(markdown(side_by_side(printed(number(options.exhibit), dataset_name))))
    return 0


def _settings(options: argparse.Namespace, kind: str) -> dict[str, dict[str, Any]]:
    """{method: settings} from --settings, of methods that the exhibit trains."""
    methods = list(TITLES) if kind == "methods" else ["lnln"]
    found = tuned(options.settings, [(method, "point") for method in methods])
    return {method: settings for (method, _), settings in found.items()}


def _named(preset: str | None) -> str | None:
    return preset.upper() if preset not in (None, "mini") else None


def _settle(options: argparse.Namespace) -> tuple[Source, Dataset]:
    """Open the data; without --preset, take the settings that the paper has for them.

    That is mini for simulated data; an unknown file gets what its labels suggest.
    """
    settled = options.preset is not None
    options.preset = options.preset or "mini"
    source = source_for(options)
    dataset = open_source(source)
    for line in said(dataset):
        print(line)
    if not settled and dataset.name != "simulated":
        known = dataset.name in PRESETS
        options.preset = dataset.name if known else dataset.scheme
        source = replace(source, preset=options.preset)
        print(f"settings: --preset {options.preset}, by the data")
    return replace(source, sha256=dataset.sha256), dataset


def listing() -> str:
    """All exhibits as a table of text."""
    lines = [f"{'exhibit':9s} {'shows':38s} {'data sets':18s} chapter"]
    for name in sorted(EXHIBITS, key=_order):
        exhibit = EXHIBITS[name]
        sets = " ".join(exhibit.datasets)
        lines.append(f"{name:9s} {exhibit.shows:38s} {sets:18s} {exhibit.chapter}")
    return "\n".join(lines)


def _chapter_file(options: argparse.Namespace) -> Path:
    """The chapter that draws a figure, in the folder that the options name."""
    name = f"{EXHIBITS[options.exhibit].chapter}.ipynb"
    if options.chapters is None or not (options.chapters / name).is_file():
        raise SettingsError(
            f"{options.exhibit} is drawn by the chapter {name}: give the folder of the "
            "chapters, from a clone of the repository (--chapters FOLDER)"
        )
    return options.chapters / name


def _draw(
    options: argparse.Namespace, source: Source, dataset: Dataset, folder: Path
) -> int:
    """Run a chapter on the data, and on a trained LNLN if it looks into one."""
    if options.corruption != "random":
        raise SettingsError(
            f"{options.exhibit} is drawn by a chapter, which shows random data missing "
            "only; leave out --corruption"
        )
    told = source.reading
    if told.scheme or told.transcripts or told.valid_share:
        raise SettingsError(
            f"{options.exhibit} is drawn by a chapter, which takes a file as it is; "
            "write a clean one with lnln data convert and give that as --data"
        )
    chapter = _chapter_file(options)
    try:
        import papermill
    except ImportError as error:
        raise MissingPackageError(f"{error}; run pip install 'lnln[book]'") from error
    if source.spec == "simulated":
        size = "mini" if source.preset == "mini" else "full"
        source = replace(source, spec=f"simulated:{size}")
    wanted = papermill.inspect_notebook(str(chapter))
    values = {"source": source.spec, "device": options.device}
    cells: list[Cell] = []
    # The book's own model serves for the book's own data.
    if "run" in wanted and source.spec != "simulated:mini":
        settings = _settings(options, "chapter").get("lnln")
        lnln = adapted(PRESETS[options.preset], options, dataset, settings)
        presets = {"lnln": lnln}
        seeds, device = options.seeds[:1], options.device
        cells = cells_of(presets, source, folder, seeds, device=device)
        print(f"a chapter shows one run: seed {seeds[0]}")
        values["run"] = str(cells[0].folder.absolute())
    values = {name: values[name] for name in values if name in wanted}
    given = ", ".join(f"{name} = {value}" for name, value in values.items())
    if options.dry_run:
        lines = plan(cells, dataset) if cells else []
        print("\n".join([*lines, f"{chapter}: {given}"]))
        return 0
    if cells:
        run_grid(
            cells,
            progress=not options.quiet,
            cluster=options.cluster,
            jobs=jobs_of(options),
        )
    drawn = folder / options.exhibit / chapter.name
    drawn.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(chapter),
        str(drawn),
        parameters=values,
        cwd=str(chapter.parent),
        kernel_name="python3",
        progress_bar=not options.quiet,
    )
    print(f"{drawn}: {given}")
    return 0
