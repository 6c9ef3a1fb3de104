"""bfloat16, torch.compile, fused steps, a second device for data, and memory."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.workload import make_batch

from lnln import (
    PRESETS,
    Batch,
    Dataset,
    Preset,
    Split,
    Standardizer,
    fit_linear,
    load_model,
    split_uniforms,
    train,
)
from lnln.missing.corruption import CORRUPTIONS
from lnln.missing.erasing import fixed_rates
from lnln.models.blocks.encoder import EncoderConfig
from lnln.sharing.export import export_onnx
from lnln.training.checkpoint import TrainedModel, read_tensors
from lnln.training.loop import TrainingError
from lnln.training.run import start_run
from lnln.training.settings import with_train

pytestmark = pytest.mark.gpu


def losses(dataset: Dataset, folder: Path, device: str, **changes: Any) -> list[float]:
    """The training loss of each epoch, by default of two."""
    changes = {"epochs": 2, "batch_size": 16, "validation_rates": (0.5,), **changes}
    preset = with_train(PRESETS["mini"], **changes)
    record = train(preset, dataset, folder, device=device, progress=False)
    return [entry["train_total"] for entry in record["history"]]


def test_bfloat16_learns_the_same(
    device: str, dataset: Dataset, tmp_path: Path
) -> None:
    half = losses(dataset, tmp_path / "half", device, bf16=True)
    full = losses(dataset, tmp_path / "full", device)
    assert half == pytest.approx(full, rel=0.05)
    assert half != full, "nothing was computed in bfloat16"
    weights = load_model(tmp_path / "half" / "model.safetensors", device).model
    assert {p.dtype for p in weights.parameters()} == {torch.float32}


def test_a_compiled_model_learns_the_same(
    device: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.startswith("cuda"):
        pytest.importorskip("triton", reason="torch.compile needs triton on CUDA")
        if shutil.which("cc") is None and shutil.which("gcc") is None:
            pytest.skip("torch.compile needs a C compiler")
    else:
        # Traced, but not translated, which takes minutes on a CPU.
        traced = partial(torch.compile, backend="eager")
        monkeypatch.setattr(torch, "compile", traced)
    train_split = dataset.train
    some = replace(train_split, batch=train_split.batch.select(torch.arange(32)))
    two_steps = replace(dataset, splits={**dataset.splits, "train": some})
    compiled, eager = (
        losses(two_steps, tmp_path / name, device, epochs=1, compile=name == "compiled")
        for name in ("compiled", "eager")
    )
    # Dropout is drawn in another order.
    assert compiled == pytest.approx(eager, rel=0.1)


def test_steps_are_fused_and_are_the_same_steps(
    cuda: str, dataset: Dataset, tmp_path: Path
) -> None:
    preset = PRESETS["mini"].fit_to(dataset)
    run = start_run(preset, dataset, tmp_path, False, torch.device(cuda))
    assert run.optimizer.defaults["fused"]
    copies = [p.detach().clone() for p in run.model.parameters()]
    copy_of = dict(zip(run.model.parameters(), copies, strict=True))
    groups = [
        {**group, "params": [copy_of[p] for p in group["params"]]}
        for group in run.recipe.groups
    ]
    plain = torch.optim.AdamW(groups, eps=run.recipe.epsilon, fused=False)
    generator = torch.Generator(cuda).manual_seed(0)
    for _ in range(3):
        for ours, theirs in copy_of.items():
            ours.grad = torch.randn(ours.shape, generator=generator, device=cuda)
            theirs.grad = ours.grad.clone()
        run.optimizer.step()
        plain.step()
    for ours, theirs in copy_of.items():
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_data_on_the_device_are_damaged_alike(
    kind: str, device: str, dataset: Dataset
) -> None:
    batch, usable = dataset.test.batch, ("l", "a", "v")
    damage = CORRUPTIONS[kind].damage
    there = damage(batch.to(device), 0.4, usable, 1).erased()
    here = damage(batch, 0.4, usable, 1).erased()
    assert there.device.type == torch.device(device).type
    assert torch.equal(there.tokens.cpu(), here.tokens)
    for m in ("a", "v"):
        torch.testing.assert_close(
            there.sequence(m).cpu(), here.sequence(m), rtol=1e-5, atol=1e-5
        )


def test_statistics_and_baseline_agree(device: str, dataset: Dataset) -> None:
    there = Standardizer.fit(dataset.train.batch.to(device))
    here = Standardizer.fit(dataset.train.batch)
    for name, value in vars(here).items():
        torch.testing.assert_close(getattr(there, name).cpu(), value)
    answers = [
        fit_linear(dataset, copies=2, device=name)(dataset.test.batch).cpu()
        for name in (device, "cpu")
    ]
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=1e-4)


def test_released_masks_are_the_same_there(
    device: str, dataset: Dataset, tmp_path: Path
) -> None:
    losses(dataset, tmp_path, device)
    batch = dataset.test.batch
    rates = torch.full((len(batch), 3), 0.3, dtype=torch.float64)
    draws = split_uniforms(batch, "released")
    one, two = (
        load_model(tmp_path / "model.safetensors", name).predict(batch, rates, draws)
        for name in (device, "cpu")
    )
    torch.testing.assert_close(one.sentiment, two.sentiment, rtol=0, atol=1e-4)


def test_a_model_on_the_device_is_exported_and_stays_there(
    device: str, dataset: Dataset, tmp_path: Path
) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    losses(dataset, tmp_path, device)
    trained = load_model(tmp_path / "model.safetensors", device)
    assert export_onnx(trained, tmp_path / "model.onnx") < 1e-4
    where = next(trained.model.parameters()).device
    assert where.type == torch.device(device).type


@pytest.fixture
def memory(cuda: str) -> Iterator[Any]:
    """Allows the process so many megabytes beyond what it holds."""

    def allow(megabytes: float) -> None:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(cuda).total_memory
        held = torch.cuda.memory_reserved(cuda)
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, (held + megabytes * 2**20) / total)
        )

    yield allow
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def long_ones(count: int) -> Dataset:
    """Random utterances as long as MOSI's longest."""
    batch, ids = make_batch(count, full=True), tuple(map(str, range(count)))
    some = Split(batch, ids, ids)
    splits = {name: some for name in ("train", "valid", "test")}
    return Dataset("random", "mosi", splits, "random", "0" * 64)


def big() -> Preset:
    preset = with_train(PRESETS["mosi"], epochs=1, batch_size=64)
    encoder = EncoderConfig(width=256, depth=4, heads=4, ffn_width=1024)
    return replace(preset, model=replace(preset.model, encoder=encoder))


def test_runs_on_long_utterances_repeat_exactly(cuda: str, tmp_path: Path) -> None:
    preset = with_train(big(), epochs=2, batch_size=16)
    one, two = (tmp_path / name for name in ("one", "two"))
    for folder in (one, two):
        train(preset, long_ones(48), folder, device=cuda, progress=False)
    first, second = (read_tensors(f / "model.safetensors")[0] for f in (one, two))
    assert not [name for name in first if not torch.equal(first[name], second[name])]


def test_training_beyond_the_memory_is_told_in_one_line(
    cuda: str, memory: Any, tmp_path: Path
) -> None:
    memory(400)
    with pytest.raises(TrainingError, match="smaller --batch-size") as told:
        train(big(), long_ones(64), tmp_path, device=cuda, progress=False)
    assert "\n" not in str(told.value)


def test_a_sweep_beyond_the_memory_goes_on_in_halves(
    cuda: str, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, where = long_ones(64), torch.device(cuda)
    run = start_run(big().fit_to(data), data, tmp_path, False, where)
    trained, batch = run.trained(), data.test.batch
    corruptions = [
        (fixed_rates(len(batch), rate), split_uniforms(batch, 0)) for rate in (0.3, 0.6)
    ]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    want = trained.sweep(batch, corruptions, 128)
    needed = (torch.cuda.max_memory_allocated() - before) / 2**20
    sizes: list[tuple[int, bool]] = []
    answers = TrainedModel._answers

    def watched(self: TrainedModel, part: Batch, *rest: Any) -> Any:
        found = answers(self, part, *rest)
        sizes.append((len(part), found is not None))
        return found

    monkeypatch.setattr(TrainedModel, "_answers", watched)
    memory(needed * 0.6)
    found = trained.sweep(batch, corruptions, 128)
    assert sizes[0] == (64, False), "the memory sufficed after all"
    assert sum(size for size, done in sizes if done) == len(batch)
    for one, two in zip(want, found, strict=True):
        torch.testing.assert_close(one.sentiment, two.sentiment, rtol=0, atol=1e-4)
