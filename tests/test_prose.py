"""What the prose names exists: names of the package, commands, options, links."""

import contextlib
import importlib
import inspect
import io
import pkgutil
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

import lnln
from lnln.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(r"```.*?```|`([^`]+)`", re.DOTALL)
DOTTED = re.compile(r"(?<![\w/])lnln(?:\.\w+)+")
MEMBER = re.compile(r"(?<![\w.])([A-Z]\w+)\.([a-z_]\w*)\b")
COMMAND = re.compile(r"(?<![\w./-])lnln ([a-z]+)((?: [^\n`|>#]*)?)")
TARGET = re.compile(r"(?<!\w)make ([a-z]+)\b")


def texts() -> Iterator[tuple[str, str]]:
    """Every page and chapter, README and CONTRIBUTING: name and prose."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("data/*.md"), *ROOT.glob("book/*.md")]
    for page in sorted(pages):
        yield page.name, page.read_text("utf-8")
    for path in sorted(ROOT.glob("book/*.ipynb")):
        cells = nbformat.read(path, 4).cells
        prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
        yield path.stem, "\n\n".join(prose)


TEXTS = dict(texts())
every_text = pytest.mark.parametrize("name", TEXTS)


def public_names() -> dict[str, Any]:
    """Every class and function of the package by its bare name."""
    found: dict[str, Any] = {}
    for info in pkgutil.iter_modules(lnln.__path__):
        module = importlib.import_module(f"lnln.{info.name}")
        found |= {k: v for k, v in vars(module).items() if not k.startswith("_")}
    return found


PUBLIC = public_names()


def resolves(dotted: str) -> bool:
    """Whether a name such as `lnln.missing.erasing.erase` exists."""
    parts = dotted.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for name in parts[split:]:
            if not has_member(found, name):
                return False
            found = getattr(found, name, None)
        return True
    return False


def has_member(owner: Any, name: str) -> bool:
    if hasattr(owner, name):
        return True
    if not inspect.isclass(owner):
        return False
    # Fields without defaults and what `__init__` sets are no class attributes.
    fields = {k for base in owner.__mro__ for k in getattr(base, "__annotations__", {})}
    if name in fields:
        return True
    with contextlib.suppress(OSError, TypeError):
        return f"self.{name} =" in inspect.getsource(owner)
    return False


def spans(text: str) -> list[str]:
    """What stands in backticks, blocks of code included."""
    return [match.group(0).strip("`") for match in CODE.finditer(text)]


@every_text
def test_names_of_the_package_exist(name: str) -> None:
    for span in spans(TEXTS[name]):
        for dotted in DOTTED.findall(span):
            assert resolves(dotted), f"{dotted} in {name}"
        for owner, member in MEMBER.findall(span):
            if owner in PUBLIC:
                assert has_member(PUBLIC[owner], member), f"{owner}.{member} in {name}"


@every_text
def test_commands_and_their_options_exist(name: str) -> None:
    for span in spans(TEXTS[name]):
        for command, rest in COMMAND.findall(span):
            words = [command]
            # `lnln data check FILE` has a second command word.
            words += [w for w in rest.split()[:1] if command == "data" and w.isalpha()]
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                with pytest.raises(SystemExit) as stop:
                    main([*words, "--help"])
            assert stop.value.code == 0, f"lnln {' '.join(words)} in {name}"
            for option in re.findall(r"--[a-z][\w-]*", rest):
                assert option in said.getvalue(), f"{option} of {command} in {name}"


@every_text
def test_targets_of_make_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for span in spans(TEXTS[name]):
        for target in TARGET.findall(span):
            assert target in targets, f"make {target} in {name}"


@pytest.mark.parametrize(
    ("dotted", "exists"),
    [
        ("lnln.erase", True),
        ("lnln.missing.erasing.erase", True),
        ("lnln.models.method.Output.completeness", True),
        ("lnln.models.lnln.ModalityEmbedding.tokens", True),
        ("lnln.erased", False),
        ("lnln.missing.erasing.erased", False),
        ("lnln.models.method.Output.complete", False),
    ],
)
def test_a_wrong_name_is_noticed(dotted: str, exists: bool) -> None:
    assert resolves(dotted) is exists


class Links(HTMLParser):
    """The links and the ids of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("href", "src") and value:
                self.links.add(value)
            elif key in ("id", "name") and value:
                self.ids.add(value)


def broken_links(folder: Path) -> Iterator[str]:
    """Links from page to page, to files and to places in pages, that lead nowhere."""
    found = (path for path in folder.rglob("*.html") if "_static" not in path.parts)
    pages = {path.resolve(): Links() for path in found}
    for path, page in pages.items():
        page.feed(path.read_text("utf-8"))
    for path, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = path
            if address.path:
                target = (path.parent / unquote(address.path)).resolve()
            if not target.is_file():
                yield f"{path.name}: {link}"
            elif address.fragment and target in pages:
                if unquote(address.fragment) not in pages[target].ids:
                    yield f"{path.name}: {link}"


def test_links_of_the_pages_lead_somewhere(pages: Path) -> None:
    assert list(broken_links(pages)) == []


def test_broken_links_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="x"></p><a href="#x"></a><a href="a.html#x"></a><a href="b.html"></a>'
        '<a href="a.html#y"></a><img src="c.png"><a href="https://x.example/d"></a>'
    )
    assert sorted(broken_links(tmp_path)) == [
        "a.html: a.html#y",
        "a.html: b.html",
        "a.html: c.png",
    ]


def test_every_exercise_is_listed(pages: Path) -> None:
    page = (pages / "book" / "exercises.html").read_text("utf-8")
    listed = re.findall(r"<strong>(\d+\.\d+)</strong>", page)
    asked = [
        number
        for path in sorted(ROOT.glob("book/*.ipynb"))
        for cell in nbformat.read(path, 4).cells
        if "exercise" in cell.metadata.get("tags", [])
        for number in re.findall(r'attempt\(\s*"(\d+\.\d+)"', cell.source)
    ]
    assert len(asked) > 30
    assert listed == asked
