"""pyproject.toml, constraints.txt, environment.yml and the Makefile tell one story."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text("utf-8")
PINS = [
    Requirement(line)
    for line in CONSTRAINTS.splitlines()
    if line and not line.startswith("#")
]
PINNED = {canonicalize_name(pin.name): str(pin.specifier) for pin in PINS}


def direct_requirements() -> list[Requirement]:
    texts = [*PROJECT["dependencies"], *sum(EXTRAS.values(), [])]
    return [Requirement(text) for text in texts]


def conda() -> tuple[list[str], list[str]]:
    """The conda and the pip part of environment.yml."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    dependencies = listed["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    return [entry for entry in dependencies if isinstance(entry, str)], pip


def test_every_direct_dependency_has_a_pin_that_fits() -> None:
    for requirement in direct_requirements():
        pin = PINNED.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is not pinned"
        version = pin.removeprefix("==")
        assert requirement.specifier.contains(version), requirement


def test_constraints_are_plain_pins() -> None:
    for pin in PINS:
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(pin.specifier)), pin
        assert pin.url is None
        assert not pin.extras
    assert "lnln" not in PINNED
    assert "://" not in CONSTRAINTS


def test_constraints_are_sorted_and_unique() -> None:
    names = [pin.name.lower() for pin in PINS]
    assert names == sorted(names)
    assert len(names) == len(PINNED)


def test_torch_is_not_pinned_for_users_of_the_package() -> None:
    torch = next(r for r in direct_requirements() if r.name == "torch")
    assert {spec.operator for spec in torch.specifier} == {">="}


def test_jupyter_book_stays_below_2() -> None:
    book = next(r for r in direct_requirements() if r.name == "jupyter-book")
    assert not book.specifier.contains("2.0.0")


def test_environment_installs_the_same_extras_under_the_same_constraints() -> None:
    _, pip = conda()
    assert pip == ["-c constraints.txt", f"-e .[{','.join(sorted(EXTRAS))}]"]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert f"-c constraints.txt -e '.[{','.join(sorted(EXTRAS))}]'" in makefile


def test_environment_has_a_python_that_the_package_accepts() -> None:
    listed, _ = conda()
    python = next(entry for entry in listed if entry.startswith("python="))
    version = python.removeprefix("python=")
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    assert "pip" in listed
