"""Every method computes on the device what it computes on the CPU, and resumes there.

Draws on a GPU are other draws than on a CPU. So that numbers can be compared, both
get weights, order, rates and masks that were drawn on the CPU, and no dropout.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lnln import (
    Dataset,
    Preset,
    conditions,
    erase,
    evaluate,
    load_model,
    split_uniforms,
    train,
    training_rates,
)
from lnln.evaluation.sweep import mean_by_rate
from lnln.models import TITLES
from lnln.models.method import Step
from lnln.training import loop
from lnln.training.checkpoint import read_tensors
from lnln.training.presets import preset_for
from lnln.training.run import start_run
from lnln.training.settings import with_train

pytestmark = pytest.mark.gpu
every_method = pytest.mark.parametrize("method", TITLES)

#: Largest difference of a prediction, in units of sentiment (-3 to 3).
PREDICTION = 1e-4
#: Largest relative difference of the loss at equal weights, and after steps in which
#: Adam divides tiny gradients by their own size.
FIRST_LOSS, LATER_LOSS = 1e-4, 5e-3


def short(method: str, epochs: int) -> Preset:
    changes: dict[str, Any] = {"epochs": epochs, "batch_size": 16}
    return with_train(
        preset_for(method, "mini"), validation_rates=(0.0, 0.5), **changes
    )


@every_method
def test_two_epochs_are_trained_and_scored_there(
    method: str, device: str, dataset: Dataset, tmp_path: Path
) -> None:
    record = train(short(method, 2), dataset, tmp_path, device=device, progress=False)
    assert len(record["history"]) == 2
    for entry in record["history"]:
        assert all(torch.tensor(list(entry.values())).isfinite())
    if device.startswith("cuda"):
        assert record["device"] == torch.cuda.get_device_name(device)
    file, wanted = tmp_path / "model.safetensors", conditions((0.0, 0.5, 0.9))
    batch = dataset.test.batch
    there, here = (load_model(file, name) for name in (device, "cpu"))
    assert next(there.model.parameters()).device.type == torch.device(device).type
    corruptions = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        rates = training_rates(len(batch), generator)
        corruptions.append((rates, split_uniforms(batch, seed)))
    for one, two in zip(
        there.sweep(batch, corruptions), here.sweep(batch, corruptions), strict=True
    ):
        torch.testing.assert_close(
            one.sentiment, two.sentiment, rtol=0, atol=PREDICTION
        )
    errors = [
        mean_by_rate(
            evaluate(tmp_path, dataset, wanted, device=name, progress=False), "mae"
        )[TITLES[method]].to_list()
        for name in (device, "cpu")
    ]
    assert errors[0] == pytest.approx(errors[1], abs=PREDICTION)


def without_dropout(preset: Preset) -> Preset:
    encoder = replace(preset.model.encoder, dropout=0.0)
    return replace(preset, model=replace(preset.model, encoder=encoder))


def first_losses(method: str, dataset: Dataset, folder: Path, name: str) -> list[float]:
    """The losses of three steps on the same batches."""
    preset = without_dropout(short(method, 2)).fit_to(dataset)
    run = start_run(preset, dataset, folder, False, torch.device(name))
    for module in run.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    run.model.train()
    standardize = run.standardizer or (lambda batch: batch)
    data = standardize(dataset.train.batch)
    generator = torch.Generator().manual_seed(0)
    found = []
    order = torch.randperm(len(data), generator=generator)
    for step, index in enumerate(order[:24].split(8)):
        some = data.select(index)
        rates = training_rates(len(index), generator)
        complete = run.model.trim(some.to(run.device))
        erased = erase(complete, rates, split_uniforms(some, step))
        item = Step(
            complete,
            erased,
            index.to(run.device),
            2,
            step,
            run.recipe.stages,
            run.forward,
            preset.loss,
        )
        for group in run.optimizer.param_groups:
            group["lr"] = 1e-3
        found.append(loop._step(run, item, 1.0)["total"].item())
    return found


@every_method
def test_the_first_losses_are_those_of_the_cpu(
    method: str, device: str, dataset: Dataset, tmp_path: Path
) -> None:
    there = first_losses(method, dataset, tmp_path / "there", device)
    here = first_losses(method, dataset, tmp_path / "here", "cpu")
    assert there[0] == pytest.approx(here[0], rel=FIRST_LOSS)
    assert there == pytest.approx(here, rel=LATER_LOSS)


def weights(folder: Path) -> dict[str, Tensor]:
    tensors, _ = read_tensors(folder / "state.safetensors")
    return tensors


@every_method
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(
    method: str,
    device: str,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    preset, whole, broken = short(method, 3), tmp_path / "whole", tmp_path / "broken"
    train(preset, dataset, whole, device=device, progress=False)
    step = loop._step

    def dies(run: Any, item: Step, *rest: Any) -> Any:
        if (item.epoch, item.number) == (2, 1):
            raise KeyboardInterrupt
        return step(run, item, *rest)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "_step", dies)
        train(preset, dataset, broken, device=device, progress=False)
    train(preset, dataset, broken, resume=True, device=device, progress=False)
    one, two = weights(whole), weights(broken)
    assert one.keys() == two.keys()
    different = [name for name in one if not torch.equal(one[name], two[name])]
    nan = [name for name in different if one[name].isnan().any()]
    for name in nan:  # centres that Self-MM has not seen yet
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=0, equal_nan=True)
    assert set(different) == set(nan)
