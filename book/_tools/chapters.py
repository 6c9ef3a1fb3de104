"""Run the chapters and keep their notebooks in one canonical form.

    python book/_tools/chapters.py run --in-place
    python book/_tools/chapters.py run --in-place 05_modality_embedding
    python book/_tools/chapters.py run --out _build/runs -p seed 1 --jobs 1
    python book/_tools/chapters.py check

The chapters are the notebooks of the `book` folder that this file lies in.
Canonical form means that two runs on one machine give the same bytes: no
times, no random ids, no metadata beyond kernel, language and tags, and no live
widgets, which a page cannot run. Each chapter runs on one thread, so that what
it computes does not depend on the number of cores.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines

BOOK = Path(__file__).resolve().parents[1]
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
MAX_LINES, MAX_COLUMNS = 40, 79
# Every library that computes on threads reads one of these when it is loaded.
THREADS = (
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


def chapter_paths() -> list[Path]:
    """The notebooks of the book, in reading order."""
    return sorted(BOOK.glob("*.ipynb"))


def parameter_names(notebook: NotebookNode) -> set[str]:
    """The names that the cell tagged `parameters` assigns.

    Args:
        notebook: a chapter.

    Returns:
        The assigned names; empty without such a cell.
    """
    return {
        node.id
        for cell in notebook.cells
        if "parameters" in cell.metadata.get("tags", [])
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


class NoFrontend(PapermillNotebookClient):
    """A client without widgets: what an `Output` would catch stays an output.

    So pages show what a reader's own sliders draw first, and `pytest --nbval`,
    which catches nothing either, can compare it.
    """

    def on_comm_open_jupyter_widget(self, msg: dict[str, Any]) -> None:
        """Do not mimic the widget."""


class Chapters(Engine):
    """How papermill runs a chapter."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, **options: Any
    ) -> NotebookNode:
        """Run all cells.

        Args:
            nb_man: papermill's view of the notebook.
            kernel_name: of the kernel that is started.
            **options: papermill's, which the book has no use for.

        Returns:
            The executed notebook.
        """

        def execute() -> NotebookNode:
            return NoFrontend(
                nb_man,
                kernel_name=kernel_name,
                timeout=600,
                startup_timeout=60,
                store_widget_state=False,
                coalesce_streams=True,
                # Else kernels tell at every start and stop what a reader
                # cannot use; what fails in a cell comes as a message,
                # whatever the level.
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            ).execute()

        try:
            return execute()
        except DeadKernelError:
            raise
        except RuntimeError:
            # Two kernels that start at once may take the same port.
            return execute()


papermill_engines.register("chapters", Chapters)


def run(path: Path, parameters: dict[str, Any] | None = None) -> NotebookNode:
    """Run one chapter in the book's folder.

    Args:
        path: the chapter's file, which is not changed.
        parameters: values for names in its `parameters` cell.

    Returns:
        The executed notebook in canonical form.

    Raises:
        ValueError: the chapter has no such parameter.
        papermill.PapermillExecutionError: a cell failed.
    """
    parameters = parameters or {}
    # papermill only warns about a misspelt name and runs the old values.
    unknown = set(parameters) - parameter_names(nbformat.read(path, 4))
    if unknown:
        raise ValueError(
            f"{path.name} has no parameter {', '.join(sorted(unknown))}"
        )
    executed = papermill.execute_notebook(
        str(path),
        None,
        parameters=parameters,
        cwd=str(BOOK),
        kernel_name="python3",
        engine_name="chapters",
        progress_bar=False,
    )
    return canonical(executed)


def canonical(notebook: NotebookNode) -> NotebookNode:
    """Reduce a notebook to what a reader sees.

    Args:
        notebook: any notebook.

    Returns:
        A copy with fixed cell ids and minimal metadata. A widget view goes
        where the output has a `text/html` copy of it, or is on no page;
        `problems` reports one that stays.
    """
    result = nbformat.from_dict(notebook)
    result.metadata = {
        "kernelspec": KERNEL,
        "language_info": {"name": "python"},
    }
    result.nbformat, result.nbformat_minor = 4, 5
    for number, cell in enumerate(result.cells):
        cell.id = f"c{number:02d}"
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = {}
            off_page = tags and "remove-output" in tags
            if off_page or "text/html" in output.get("data", {}):
                output.get("data", {}).pop(WIDGET_VIEW, None)
    return nbformat.from_dict(result)


def text_of(notebook: NotebookNode) -> str:
    """The file content of a notebook.

    Args:
        notebook: any notebook.

    Returns:
        JSON text that ends in a newline.
    """
    return nbformat.writes(notebook, nbformat.NO_CONVERT) + "\n"


def problems(path: Path) -> Iterator[str]:
    """Look for what keeps a stored chapter from being published.

    Args:
        path: the chapter's file.

    Yields:
        One sentence per problem.
    """
    stored = path.read_text("utf-8")
    notebook = nbformat.reads(stored, nbformat.NO_CONVERT)
    if stored != text_of(canonical(notebook)):
        yield "is not in canonical form; `make chapters` rewrites it"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [c.execution_count for c in code] != list(range(1, len(code) + 1)):
        yield "was not run from top to bottom"
    if (
        len([c for c in code if "parameters" in c.metadata.get("tags", [])])
        != 1
    ):
        yield "needs exactly one cell tagged `parameters`"
    for cell in notebook.cells:
        for problem in cell_problems(cell):
            yield f"cell {cell.id} {problem}"
    yield from exercise_problems(notebook)


def cell_problems(cell: NotebookNode) -> Iterator[str]:
    """Look for faults in one stored cell.

    Args:
        cell: a cell of any type.

    Yields:
        One sentence per problem, without its subject.
    """
    if cell.cell_type != "code":
        return
    lines = cell.source.splitlines()
    if len(lines) > MAX_LINES:
        yield f"has {len(lines)} lines, more than {MAX_LINES}"
    widest = max(map(len, lines), default=0)
    if widest > MAX_COLUMNS:
        yield f"has {widest} columns, more than {MAX_COLUMNS}"
    if "nbval-ignore-output" in cell.metadata.get("tags", []):
        yield "keeps its output from being compared"
    if "injected-parameters" in cell.metadata.get("tags", []):
        yield "was injected by a run with other parameters"
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"stopped with {output.ename}"
        if WIDGET_VIEW in output.get("data", {}):
            yield "shows a widget that has no `text/html` copy"


def exercise_problems(notebook: NotebookNode) -> Iterator[str]:
    """Look for exercises whose check proves nothing.

    Args:
        notebook: a stored chapter.

    Yields:
        One sentence a stub that passes its check, or a solution that does not.
    """
    verdicts: dict[str, list[tuple[str, str]]] = {
        "exercise": [],
        "solution": [],
    }
    for cell in notebook.cells:
        for tag in verdicts.keys() & set(cell.metadata.get("tags", [])):
            text = "".join(o.get("text", "") for o in cell.outputs)
            verdicts[tag] += re.findall(
                r"^Exercise (\S+): (not yet|solved)", text, re.M
            )
    for number, verdict in verdicts["exercise"]:
        if verdict != "not yet":
            yield f"exercise {number} passes its check unsolved"
    for number, verdict in verdicts["solution"]:
        if verdict != "solved":
            yield f"the solution of exercise {number} fails its check"
    open_, closed = (
        [n for n, _ in verdicts[t]] for t in ("exercise", "solution")
    )
    if open_ != closed:
        yield f"has exercises {open_} but solutions {closed}"


def one_thread() -> None:
    """Let kernels that this process starts compute on one thread each."""
    # Two kernels that both take all cores wait for each other mostly.
    os.environ.update(dict.fromkeys(THREADS, "1"))
    # Python's own modules need no line numbers in a debugger; it would warn.
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"


def run_to_file(
    path: Path, out: Path, parameters: dict[str, Any]
) -> tuple[float, str]:
    """Run one chapter and write the result.

    Args:
        path: the chapter.
        out: an existing folder.
        parameters: values for the chapter's parameters.

    Returns:
        The seconds that it took, and what went wrong: empty if nothing did.
    """
    start, fault = time.monotonic(), ""
    try:
        text = text_of(run(path, parameters))
        (out / path.name).write_text(text, "utf-8", newline="\n")
    except papermill.PapermillExecutionError as error:
        fault = str(error)
    except Exception:  # as text, since not every exception can be sent
        fault = traceback.format_exc()
    return time.monotonic() - start, fault


def run_all(
    paths: list[Path], out: Path, parameters: dict[str, Any], jobs: int
) -> list[str]:
    """Run chapters, several at a time, and write the results.

    Args:
        paths: the chapters.
        out: folder for the executed notebooks; `BOOK` rewrites the chapters.
        parameters: values for the chapters' parameters.
        jobs: chapters at a time, at least 1.

    Returns:
        The names of the chapters that failed; the others are written.
    """
    out.mkdir(parents=True, exist_ok=True)
    # Large files first: they tend to take long, and short ones fill the gaps.
    paths = sorted(paths, key=lambda path: -path.stat().st_size)
    failed = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, one_thread) as pool:
        running = {
            pool.submit(run_to_file, path, out, parameters): path.stem
            for path in paths
        }
        for count, done in enumerate(as_completed(running), start=1):
            name, (seconds, fault) = running[done], done.result()
            verdict = "FAILED" if fault else f"{seconds:.0f} s"
            print(f"[{count}/{len(paths)}] {name}: {verdict}", flush=True)
            if fault:
                failed.append(name)
                print(fault, file=sys.stderr, flush=True)
    return sorted(failed)


def check_all() -> int:
    """Print every problem of every stored chapter.

    Returns:
        The number of problems.
    """
    found = [
        f"{p.name} {problem}"
        for p in chapter_paths()
        for problem in problems(p)
    ]
    for line in found:
        print(line, file=sys.stderr)
    return len(found)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Run or check the chapters.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "check", help="check the stored notebooks without running them"
    )
    runner = commands.add_parser("run", help="run chapters")
    runner.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="chapters to run (default: all)",
    )
    where = runner.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--in-place", action="store_true", help="rewrite the chapters"
    )
    where.add_argument("--out", type=Path, help="write to this folder instead")
    runner.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        dest="parameters",
        help="set a parameter; needs --out",
    )
    runner.add_argument(
        "--jobs",
        type=_count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="chapters to run at a time, on one thread each"
        " (default: the number of cores, here %(default)s)",
    )
    args = parser.parse_args(argv)
    if args.command == "check":
        return int(check_all() > 0)
    if args.in_place and args.parameters:
        parser.error("-p needs --out: the book holds the default values")
    values = {name: _literal(value) for name, value in args.parameters}
    paths = [
        p for p in chapter_paths() if not args.names or p.stem in args.names
    ]
    if unknown := set(args.names) - {p.stem for p in paths}:
        parser.error(f"no such chapter: {', '.join(sorted(unknown))}")
    out = BOOK if args.in_place else args.out
    if failed := run_all(paths, out, values, args.jobs):
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
