"""Directives that show parts of chapters on other pages.

`{chapter-output} book/01_what_goes_missing key` repeats a figure with its
`text/html` copy; `{exercise-list}` lists the exercises of all chapters. Both
are read from the notebooks when the pages are built, so they cannot disagree
with the chapters. `{paper-items}` lists what `lnln reproduce` can repeat, and
`{paper-cost}` what that is expected to cost; `{gpu-speed}` shows what
`make gpu` measured.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lnln.data.files import data_dir
from lnln.evaluation.tables import markdown
from lnln.models import TITLES
from lnln.paper.reproduce import EXHIBITS, expected_hours, presets_of
from lnln.training.presets import preset_for

#: The paper trains with three seeds.
SEEDS = 3

EXERCISE = re.compile(
    r"\*\*Exercise (\d+\.\d+)\*\* \((\d+) minutes?\)\. (.+?[.?])(?=\s|$)",
    re.DOTALL,
)


def _cells(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["cells"]
    return cells


def html_output(path: Path, key: str) -> str:
    """The `text/html` output of a chapter that holds an explorer.

    Args:
        path: the chapter's notebook.
        key: of the explorer.

    Returns:
        The markup.

    Raises:
        LookupError: no output has that id.
    """
    for cell in _cells(path):
        for output in cell.get("outputs", []):
            markup = "".join(output.get("data", {}).get("text/html", ""))
            if f'id="explorer-{key}"' in markup:
                return markup
    raise LookupError(f"{path.name} has no explorer {key!r}")


def exercises(path: Path) -> Iterator[tuple[str, int, str]]:
    """The exercises of a chapter: number, minutes, first sentence."""
    for cell in _cells(path):
        if cell["cell_type"] == "markdown":
            for number, minutes, what in EXERCISE.findall(
                "".join(cell["source"])
            ):
                yield number, int(minutes), " ".join(what.split())


class ChapterOutput(SphinxDirective):
    """Repeat an output of a chapter."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Return the markup as a raw node."""
        chapter, key = self.arguments
        path = Path(self.env.srcdir) / f"{chapter}.ipynb"
        self.env.note_dependency(str(path))
        return [nodes.raw("", html_output(path, key), format="html")]


class ExerciseList(SphinxDirective):
    """List the exercises of all chapters, in reading order."""

    def run(self) -> list[nodes.Node]:
        """Return a bullet list with one item per chapter."""
        listing = nodes.bullet_list()
        for path in sorted((Path(self.env.srcdir) / "book").glob("*.ipynb")):
            self.env.note_dependency(str(path))
            listed = list(exercises(path))
            if not listed:
                continue
            link = pending_xref(
                "",
                nodes.inline("", path.stem),
                refdomain="std",
                reftype="doc",
                refdoc=self.env.docname,
                reftarget=f"/book/{path.stem}",
                refexplicit=False,
                refwarn=True,
            )
            inner = nodes.bullet_list()
            for number, minutes, what in listed:
                text, _ = self.parse_inline(
                    f"**{number}** ({minutes} minutes): {what}"
                )
                inner += nodes.list_item("", nodes.paragraph("", "", *text))
            listing += nodes.list_item(
                "", nodes.paragraph("", "", link), inner
            )
        return [listing]


#: What an exhibit was repeated on, by its kind in `lnln.paper.reproduce`.
REPEATED_ON = {
    "methods": "simulated data",
    "ablation": "simulated data",
    "chapter": "simulated data",
    "settings": "the paper's numbers only",
    "drawing": "drawn anew",
}


def hours(name: str) -> str:
    """What an exhibit is expected to take on the real files, by data set."""
    exhibit = EXHIBITS[name]
    if (
        exhibit.kind in ("settings", "drawing")
        or exhibit.chapter == "02_the_data"
    ):
        return "none"
    of_data = {}
    for dataset in exhibit.datasets:
        preset = dataset.lower()
        presets, _ = presets_of(name, preset, dataset)
        seeds = 1 if exhibit.kind == "chapter" else SEEDS
        of_data[dataset] = seeds * expected_hours(presets.values(), preset)
    return ", ".join(f"{d}\u00a0{max(h, 1):.0f}" for d, h in of_data.items())


class PaperItems(SphinxDirective):
    """List the tables and figures of the paper."""

    def run(self) -> list[nodes.Node]:
        """Return a table with one row per exhibit."""
        lines = []
        for name, exhibit in EXHIBITS.items():
            title = name[:-1] if name[-2].isalpha() else name[:-2]
            number = name.removeprefix(title)
            shows = f"{exhibit.shows}: {', '.join(exhibit.datasets)}".rstrip(
                ": "
            )
            line = {
                "exhibit": f"{title.capitalize()}\u00a0{number}",
                "shows": shows,
                "chapter": f"{{doc}}`/book/{exhibit.chapter}`",
                "repeated on": REPEATED_ON[exhibit.kind],
                "name": f"`{name}`",
                "hours": hours(name),
            }
            lines.append(line)
        table = pd.DataFrame(lines).set_index("exhibit")
        return self.parse_text_to_nodes(markdown(table))


class PaperCost(SphinxDirective):
    """Show what one run of each method takes with the paper's settings."""

    def run(self) -> list[nodes.Node]:
        """Return a table with one row per method."""
        table = pd.DataFrame(
            {
                name.upper(): {
                    title: f"{expected_hours([preset_for(m, name)], name):.1f}"
                    for m, title in TITLES.items()
                }
                for name in ("mosi", "mosei", "sims")
            }
        )
        return self.parse_text_to_nodes(markdown(table.rename_axis("method")))


def speed_table(path: Path) -> str:
    """What was measured on a GPU, as Markdown.

    Args:
        path: the file that `make gpu` writes.

    Returns:
        A table, with the machine below it.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=0)
    machines = table.pop("machine").unique()
    table = table.replace("", "–")
    columns = (
        "*Step*: of training; *sweep*: predicts each utterance under 30 "
        "corruptions. *Share of peak*: of what a large matrix product reaches "
        "there; *faster*, *less memory*: how many times."
    )
    return f"{markdown(table)}\n\nOn {', '.join(machines)}. {columns}"


class GpuSpeed(SphinxDirective):
    """Show what was measured on a GPU."""

    def run(self) -> list[nodes.Node]:
        """Return a table with one row per measurement."""
        path = data_dir() / "benchmarks" / "gpu.csv"
        self.env.note_dependency(str(path))
        return self.parse_text_to_nodes(speed_table(path))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives.

    Args:
        app: the running Sphinx application.

    Returns:
        The extension's metadata.
    """
    app.add_directive("chapter-output", ChapterOutput)
    app.add_directive("exercise-list", ExerciseList)
    app.add_directive("paper-items", PaperItems)
    app.add_directive("paper-cost", PaperCost)
    app.add_directive("gpu-speed", GpuSpeed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
