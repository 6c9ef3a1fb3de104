"""Exported files compute what the model computes."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import lnln
from lnln.cli.main import main
from lnln.data.batch import LABEL_VALUES
from lnln.models import build_model
from lnln.sharing.export import INPUTS, ExportError, export_onnx
from lnln.training.checkpoint import TrainedModel
from lnln.training.presets import preset_for


def untrained(variant: str, answer_size: int) -> TrainedModel:
    preset = lnln.PRESETS["mini"]
    model = replace(preset.lnln, variant=variant, answer_size=answer_size, dropout=0.0)
    torch.manual_seed(0)
    return TrainedModel(
        build_model(model).eval(), replace(preset, model=model), None, {}
    )


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "mini.onnx"
    assert main(["export", "mini", "--out", str(path)]) == 0
    return path


def run(path: Path, batch: lnln.Batch) -> dict[str, Any]:
    """What a file says about utterances, by the names of its outputs, in its order."""
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, {n: getattr(batch, n).numpy() for n in INPUTS})
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(torch.from_numpy, found), strict=True))


@pytest.mark.parametrize("rate", [0.0, 0.6, 1.0])
def test_file_agrees_with_pytorch_on_erased_utterances(
    shipped: Path, rate: float
) -> None:
    test = lnln.simulate("mini", 5).test.batch
    holes = lnln.split_uniforms(test, 1)
    batch = lnln.erase(test, lnln.fixed_rates(len(test), rate), holes).batch
    found = run(shipped, batch)
    assert list(found) == ["sentiment", "probabilities", "completeness"]
    output = lnln.from_pretrained("mini")(batch)
    for name, theirs in found.items():
        assert torch.allclose(getattr(output, name), theirs, atol=1e-4, rtol=0), name


def test_file_says_what_its_probabilities_are_about(shipped: Path) -> None:
    session = onnxruntime.InferenceSession(shipped)
    stated = json.loads(session.get_modelmeta().custom_metadata_map["label_values"])
    assert stated == list(LABEL_VALUES["mosi"])
    found = run(shipped, lnln.simulate("mini").test.batch)
    p = found["probabilities"].double().numpy()
    assert np.allclose(p.sum(axis=1), 1, atol=1e-5) and p.min() >= 0
    assert np.allclose(p @ stated, found["sentiment"], atol=1e-4)


@pytest.mark.parametrize(("variant", "count"), [("paper", 1), ("released", 21)])
def test_outputs_follow_the_kind_of_answer(
    tmp_path: Path, variant: str, count: int
) -> None:
    path = tmp_path / "model.onnx"
    assert export_onnx(untrained(variant, count), path) < 1e-4
    found = run(path, lnln.simulate("mini").test.batch.select(torch.arange(3)))
    middle = [] if count == 1 else ["probabilities"]
    assert list(found) == ["sentiment", *middle, "completeness"]
    if middle:
        assert found["probabilities"].shape == (3, count)
    stated = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert ("label_values" in stated) == bool(middle)


def test_lengths_and_batch_are_free(shipped: Path) -> None:
    session = onnxruntime.InferenceSession(shipped)
    assert all(isinstance(i.shape[0], str) for i in session.get_inputs())
    one = lnln.simulate("mini").test.batch.select(torch.tensor([2])).trim()
    expected = lnln.from_pretrained("mini")(one).sentiment
    assert torch.allclose(run(shipped, one)["sentiment"], expected, atol=1e-4)


@pytest.mark.parametrize("wrong", ["sentiment", "probabilities", "completeness"])
@pytest.mark.parametrize("fault", [1e-3, float("nan")])
def test_a_file_that_is_wrong_in_one_number_does_not_appear(
    shipped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: str,
    fault: float,
) -> None:
    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def run(self, names: list[str], inputs: dict[str, Any]) -> list[Any]:
            found = super().run(names, inputs)
            if len(found[0]) == 7:
                found[names.index(wrong)].reshape(7, -1)[3, -1] += fault
            return list(found)

    right = SimpleNamespace(model_proto=onnx.load(shipped))
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **options: right)
    path = tmp_path / "model.onnx"
    assert export_onnx(lnln.from_pretrained("mini"), path) < 1e-4
    path.unlink()
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(ExportError, match="differs from PyTorch"):
        export_onnx(lnln.from_pretrained("mini"), path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_no_reader_takes_is_told_and_does_not_appear(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter of torch 2.6, too, writes files that ONNX Runtime refuses."""
    broken = onnx.load(shipped)
    broken.graph.node[-1].input[0] = "nowhere"
    right = SimpleNamespace(model_proto=broken)
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **options: right)
    with pytest.raises(ExportError, match="ONNX Runtime does not take.*install torch"):
        export_onnx(lnln.from_pretrained("mini"), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_missing_run_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "x.onnx")]) == 1
    assert "no run folder, no checkpoint" in capsys.readouterr().err


def test_compared_methods_are_written_or_say_why_not(tmp_path: Path) -> None:
    """A fixed network can be written; one that packs its sequences cannot."""

    def given(method: str) -> TrainedModel:
        preset = preset_for(method, "mini")
        return TrainedModel(build_model(preset.model).eval(), preset, None, {})

    path = tmp_path / "model.onnx"
    assert export_onnx(given("cenet"), path) < 1e-4
    found = run(path, lnln.simulate("mini").test.batch.select(torch.arange(3)))
    assert list(found) == ["sentiment"]
    with pytest.raises(ExportError, match="mmim cannot be written as ONNX"):
        export_onnx(given("mmim"), tmp_path / "mmim.onnx")
    assert list(tmp_path.iterdir()) == [path]
