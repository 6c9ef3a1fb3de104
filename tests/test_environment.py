"""pyproject.toml, constraints.txt, environment.yml and the Makefile tell one story."""

import os
import re
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from sharing import ALONE, ON_PAGES, shared

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


def needed() -> set[str]:
    """What the package with its extras needs here, by the installed metadata."""
    # Of the package itself pyproject.toml tells: the installed one may be older.
    todo, seen, found = direct_requirements(), set(), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        found.add(name)
        for extra in ["", *requirement.extras]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            listed = [Requirement(text) for text in requires(name) or []]
            todo += [
                r for r in listed if not r.marker or r.marker.evaluate({"extra": extra})
            ]
    return found


# Only torch's build for NVIDIA GPUs has these; the book is tested with that for CPUs.
FOR_GPUS = re.compile(r"nvidia-.*|cuda-.*|triton")


def test_what_is_installed_as_it_is_lacks_nothing_and_holds_nothing_else() -> None:
    wanted = {name for name in needed() if not FOR_GPUS.fullmatch(name)}
    here = {
        canonicalize_name(pin.name)
        for pin in PINS
        if pin.marker is None or pin.marker.evaluate()
    }
    assert wanted - here == set(), "needed and not pinned"
    assert here - wanted == set(), "pinned and not needed"


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
    assert "--no-deps -r constraints.txt" in makefile


def test_environment_has_a_python_that_the_package_accepts() -> None:
    listed, _ = conda()
    python = next(entry for entry in listed if entry.startswith("python="))
    version = python.removeprefix("python=")
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    assert "pip" in listed


def workflow() -> dict[str, Any]:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    return yaml.safe_load(text)


def test_workflow_calls_scripts_and_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^([a-z]+):", makefile, re.M)
    steps = [step for job in workflow()["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert ".ci/run" in commands
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    for command in commands:
        if command != ".ci/run":
            program, target = command.split()
            assert program == "make" and target in targets, command


def test_workflow_tries_pythons_that_the_package_accepts() -> None:
    assert set(workflow()[True]) == {"push", "pull_request", "schedule"}  # yaml's "on"
    for version in workflow()["jobs"]["test"]["strategy"]["matrix"]["python"]:
        assert SpecifierSet(PROJECT["requires-python"]).contains(version)


def test_tests_that_share_costly_things_stay_on_one_process() -> None:
    files = ROOT.glob("tests/test_*.py")
    tests = {path.stem: path.read_text("utf-8") for path in files}
    users = {k for k, text in tests.items() if re.search(r"\bpages: Path[,)]", text)}
    assert users == set(ON_PAGES)
    assert all(f"def {name}(" in "".join(tests.values()) for name in ALONE)
    ids = [f"tests/{name}.py::test_x[1]" for name in (*ON_PAGES, "test_a", "test_b")]
    assert len({shared(nodeid) for nodeid in ids}) == 3
    runs = [f"tests/test_book.py::{ALONE[0]}[{name}]" for name in ("01", "02")]
    assert len({shared(nodeid) for nodeid in runs}) == 2
