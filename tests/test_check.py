"""The readiness report names every need and fails only for a real one."""

from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from lnln.cli import doctor as check
from lnln.cli.main import main
from lnln.data import files as paths


def test_report_names_every_need(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert all(line[:5] in ("OK   ", "FAIL ", "--   ") for line in lines)
    names = [line[5:].split(":")[0] for line in lines]
    needs = [Requirement(text).name for text in metadata.requires("lnln") or ()]
    rest = ["device", "encoder", "data/corpus", "data/mini", "data/local"]
    assert names == ["python", *needs, *rest]
    assert status == any(line.startswith("FAIL") for line in lines)


def test_a_wrong_version_fails() -> None:
    line = check.check_package(Requirement("numpy>=999"))
    assert line.ok is False
    assert line.state == f"{metadata.version('numpy')} (>=999)"


def test_a_local_build_of_a_version_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "2.13.0+cpu")
    assert check.check_package(Requirement("torch>=2.6")).ok is True


def test_an_absent_package_fails_unless_only_an_extra_needs_it() -> None:
    absent = "no-such-package-here"
    assert check.check_package(Requirement(absent)).ok is False
    optional = Requirement(f"{absent}; extra == 'book'")
    assert str(check.check_package(optional)).startswith("--")


def test_an_extra_with_a_wrong_version_fails() -> None:
    assert check.check_package(Requirement("numpy<1; extra == 'book'")).ok is False


def test_a_package_that_is_not_installed_says_what_to_do() -> None:
    (line,) = check.check_packages("no-such-package-here")
    assert str(line) == ("FAIL no-such-package-here: not installed; run `make setup`")


def test_no_gpu_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(check.check_device()).startswith("OK   device: cpu (no GPU: ")


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    assert str(check.check_device()) == "OK   device: cuda (Some GPU)"


def test_the_default_encoder_needs_nothing() -> None:
    assert check.check_encoder().ok is True


def test_an_encoder_folder_is_checked_file_by_file(tmp_path: Path) -> None:
    assert check.check_encoder(str(tmp_path)).ok is False
    (tmp_path / "config.json").touch()
    line = check.check_encoder(str(tmp_path))
    assert (line.ok, line.state) == (False, f"{tmp_path} lacks model.safetensors")
    (tmp_path / "model.safetensors").touch()
    assert check.check_encoder(str(tmp_path)).ok is True
    assert check.check_encoder(str(tmp_path / "none")).ok is False


@pytest.mark.parametrize("name", ["nobody/no-such-model-here", "not a valid//name"])
def test_an_encoder_name_is_looked_up_in_the_cache_only(name: str) -> None:
    line = check.check_encoder(name)
    assert line.ok is False
    assert line.state.startswith(f"{name} lacks ")


def test_data_is_found_or_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "data_dir", lambda: tmp_path)
    monkeypatch.setattr(check, "local_dir", lambda: tmp_path / "local")
    assert [line.ok for line in check.check_data()] == [False, False, None]
    for name in ("corpus", "mini", "local"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    assert [line.ok for line in check.check_data()] == [True, True, True]


def test_a_failure_sets_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "data_dir", lambda: tmp_path)
    assert main(["doctor"]) == 1


def test_paths_prefer_the_packaged_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lnln"
    package.mkdir()
    monkeypatch.setattr(paths, "_PACKAGE", package)
    monkeypatch.chdir(package)
    assert paths.data_dir() == tmp_path / "data"
    assert paths.local_dir() == tmp_path / "data" / "local"
    (package / "_data").mkdir()
    assert paths.data_dir() == package / "_data"
    assert paths.local_dir() == package / "data" / "local"
