"""A chapter that prints something else under another setting is found."""

from pathlib import Path

import nbformat
import pytest
from tools import load_tool

machines = load_tool("machines")


def chapter(folder: Path, stored: str) -> str:
    """A notebook that prints its number of threads; `stored` is what it printed."""
    cell = nbformat.v4.new_code_cell(
        "import os\n\nprint(os.environ['OMP_NUM_THREADS'])",
        execution_count=1,
        outputs=[nbformat.v4.new_output("stream", name="stdout", text=stored)],
    )
    path = folder / "chapter.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return str(path)


def test_only_settings_that_print_something_else_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed_with_one = chapter(tmp_path, "1\n")
    assert machines.main(["one", "--only", printed_with_one]) == 0
    assert "same" in capsys.readouterr().out
    assert machines.main(["one", "two", "--only", printed_with_one]) == 1
    said = capsys.readouterr().out
    assert said.index("one   same") < said.index("two   DIFFERS")


def test_unknown_setting_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        machines.main(["three"])
    assert "no such setting: three" in capsys.readouterr().err


def test_each_setting_is_another_machine() -> None:
    found = [tuple(sorted(s.items())) for s in machines.SETTINGS.values()]
    assert len(set(found)) == len(found) >= 4
