"""The layout of the package: small rooms, small modules, the paper's model alone."""

import re
from pathlib import Path

import lnln

PACKAGE = Path(lnln.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted({path.parent for path in MODULES} - {PACKAGE})


def test_a_room_has_at_most_eight_entries() -> None:
    for room in ROOMS:
        entries = {p.name for p in room.iterdir() if not p.name.startswith("__pycache")}
        assert len(entries) <= 8, (room, sorted(entries))


def test_a_module_has_at_most_400_lines() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert {path: n for path, n in lengths.items() if n > 400} == {}


def test_the_papers_model_knows_neither_the_released_program_nor_speed() -> None:
    text = (PACKAGE / "models" / "lnln.py").read_text("utf-8")
    assert not re.search(r"released|fast|in_groups|padding", text, re.IGNORECASE)


def test_no_module_names_a_file_of_the_book() -> None:
    named = [path for path in MODULES if re.search(r"\"book\"|book/", path.read_text())]
    assert named == []
