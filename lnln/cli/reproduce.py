"""`lnln reproduce`: one command for each table and figure of the paper."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lnln.cli.compare import adapted, add_grid_options
from lnln.cli.report import said
from lnln.cli.train import source_for
from lnln.data.batch import Dataset
from lnln.data.errors import SettingsError
from lnln.data.opening import Source, open_source
from lnln.evaluation.tables import markdown
from lnln.paper import printed as paper
from lnln.paper.grid import cells_of, run_grid
from lnln.paper.reproduce import (
    ITEMS,
    compare_settings,
    expected_hours,
    number,
    plan,
    presets_of,
    write_item,
)
from lnln.training.presets import PRESETS

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


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
        "item", nargs="?", choices=sorted(ITEMS, key=_order), metavar="ITEM"
    )
    parser.add_argument("--list", action="store_true", help="all items")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be done, no more"
    )
    parser.add_argument(
        "--dataset",
        choices=["MOSI", "MOSEI", "SIMS"],
        help="whose printed numbers to show; by default that of the data, else the "
        "first that the item has",
    )
    add_grid_options(parser, "runs/reproduce")
    # Decided by the data, see `_settle`.
    parser.set_defaults(run=_reproduce, preset=None)


def _order(name: str) -> tuple[bool, int]:
    return name.startswith("figure"), number(name)


def _reproduce(options: argparse.Namespace) -> int:
    if options.list or options.item is None:
        print(listing())
        return 0
    item = ITEMS[options.item]
    if options.dataset is not None and options.dataset not in item.datasets:
        raise SettingsError(
            f"--dataset {options.dataset}: {options.item} shows "
            f"{', '.join(item.datasets) or 'no data set'} only"
        )
    if item.kind == "drawing":
        print(f"{options.item} is a drawing; ours opens the book (book/intro.md)")
        return 0
    if item.kind == "settings":
        print(compare_settings(options.dataset or _named(options.preset) or "MOSI"))
        return 0
    source, dataset = _settle(options)
    dataset_name = options.dataset or item.datasets[0]
    if options.dataset is None and dataset.name.upper() in item.datasets:
        dataset_name = dataset.name.upper()
    # Runs on other data or from another preset are other runs.
    folder = options.out / f"{options.preset}-{dataset.sha256[:8]}"
    if item.kind == "chapter":
        if options.corruption != "random":
            raise SettingsError(
                f"{options.item} is drawn by a chapter, which shows random data "
                "missing only; leave out --corruption"
            )
        if len(options.seeds) > 1:
            options.seeds = options.seeds[:1]
            print(f"a chapter shows one run: seed {options.seeds[0]}")
        return _chapter(options, source, dataset, folder)
    presets, titles = presets_of(options.item, options.preset, dataset_name)
    presets = {name: adapted(p, options, dataset) for name, p in presets.items()}
    cells = cells_of(
        presets,
        source,
        folder,
        options.seeds,
        mask_seeds=options.mask_seeds,
        subsets=item.subsets,
        corruption=options.corruption,
        device=options.device,
    )
    if options.dry_run:
        print("\n".join(plan(cells, dataset)))
        # What is reckoned are the paper's epochs on the published files.
        if options.preset != "mini" and options.epochs is None:
            hours = expected_hours(presets.values(), options.preset)
            hours *= len(options.seeds)
            print(
                f"all together at most about {hours:.0f} hours on one GPU (reckoned "
                "from the work, not measured; see the results page)"
            )
        return 0
    paths = run_grid(cells, progress=not options.quiet, cluster=options.cluster)
    tables = folder / options.item
    tables.mkdir(parents=True, exist_ok=True)
    kind = options.corruption
    ours = write_item(options.item, paths, tables, dataset.scheme, titles, kind)
    print(f"Ours, {options.item} on {dataset.source}:\n\n{ours}\n")
    if options.item.startswith("table"):
        print(f"The paper's, as printed, {dataset_name} (see chapter 27 for errors):\n")
        printed = paper.printed(number(options.item), dataset_name)
        print(markdown(paper.side_by_side(printed)))
    return 0


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
    """All items as a table of text."""
    lines = [f"{'item':9s} {'shows':38s} {'data sets':18s} chapter"]
    for name in sorted(ITEMS, key=_order):
        item = ITEMS[name]
        sets = " ".join(item.datasets)
        lines.append(f"{name:9s} {item.shows:38s} {sets:18s} {item.chapter}")
    return "\n".join(lines)


def _chapter(
    options: argparse.Namespace, source: Source, dataset: Dataset, folder: Path
) -> int:
    """Train LNLN if the chapter needs a run, and have the chapter draw."""
    item = ITEMS[options.item]
    told = source.reading
    if told.scheme or told.transcripts or told.valid_share:
        raise SettingsError(
            f"{options.item} is drawn by a chapter, which takes a file as it is; write "
            "a clean one with lnln data convert and give that as --data"
        )
    tool = Path(__file__).parents[2] / "book" / "_tools" / "chapters.py"
    run: Path | None = None
    if source.spec == "simulated":
        source = replace(source, spec=f"simulated:{_size(source)}")
    # The book's own model serves for the book's own data.
    if source.spec != "simulated:mini" and item.chapter != "02_the_data":
        presets, _ = presets_of(options.item, options.preset, item.datasets[0])
        presets = {name: adapted(p, options, dataset) for name, p in presets.items()}
        (cell,) = cells_of(
            presets,
            source,
            folder,
            options.seeds,
            device=options.device,
        )
        run = cell.folder
        if options.dry_run:
            print("\n".join(plan([cell], dataset)))
    command = [sys.executable, str(tool), "run", item.chapter, "--out"]
    command += [str(folder / options.item), "-p", "source", source.spec]
    if run is not None:
        command += ["-p", "run", str(run)]
    if _takes(tool.parents[1] / f"{item.chapter}.ipynb", "device"):
        command += ["-p", "device", options.device]
    print(" ".join(command))
    if options.dry_run:
        return 0
    if not tool.is_file():
        raise SettingsError(
            f"{tool}: {options.item} is drawn by a chapter of the book; run this from "
            "a clone of the repository (make setup)"
        )
    if run is not None:
        run_grid([cell], progress=not options.quiet, cluster=options.cluster)
    return subprocess.run(command, check=False).returncode


def _takes(chapter: Path, parameter: str) -> bool:
    """Whether a chapter has this parameter; what only looks at data has no device."""
    if not chapter.is_file():
        return False
    cells = json.loads(chapter.read_text("utf-8"))["cells"]
    lines = [
        line
        for cell in cells
        if "parameters" in cell["metadata"].get("tags", [])
        for line in cell["source"]
    ]
    return any(line.split("=")[0].strip() == parameter for line in lines)


def _size(source: Source) -> str:
    return "mini" if source.preset == "mini" else "full"
