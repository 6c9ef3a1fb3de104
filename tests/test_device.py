"""The chosen device reaches everything that computes, and nothing is left behind."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import lnln
from lnln import Dataset, erase, fixed_rates, simulate, split_uniforms
from lnln.cli import main as commands
from lnln.cli.main import main
from lnln.data.errors import SettingsError
from lnln.data.opening import Source
from lnln.evaluation import sweep as evaluation
from lnln.evaluation.linear import fit_linear
from lnln.missing.corruption import CORRUPTIONS
from lnln.missing.erasing import Uniforms
from lnln.paper import grid, released
from lnln.paper.grid import Cell, run_cell
from lnln.teaching import study, trial
from lnln.training import loop as training
from lnln.training.devices import DeviceMemoryError, resolve_device
from lnln.training.presets import PRESETS
from lnln.training.scoring.predictions import Predictions
from lnln.training.settings import with_train

DATA = Source("simulated:mini", train_size=40)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulate("mini", 0, 40)


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    preset = with_train(PRESETS["mini"], epochs=1)
    training.train(preset, dataset, folder, device="cpu", progress=False)
    return folder


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    # Optimizers of a CUDA build ask the driver, which is not there, either.
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


def test_names_of_devices(two_gpus: None) -> None:
    assert resolve_device() == resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(SettingsError, match="'cuda:2'.*auto, cpu, cuda, cuda:0"):
        resolve_device("cuda:2")


def test_without_a_gpu_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device() == torch.device("cpu")
    with pytest.raises(SettingsError, match="choose from auto, cpu$"):
        resolve_device("cuda")


def cell_on(device: str, folder: Path) -> Cell:
    return Cell(PRESETS["mini"], DATA, folder, (0,), device=device)


#: Everything that takes the name of a device.
TAKERS: dict[str, Callable[[str, Dataset, Path], Any]] = {
    "train": lambda name, data, run: training.train(
        PRESETS["mini"], data, run / "new", device=name, progress=False
    ),
    "evaluate": lambda name, data, run: evaluation.evaluate(
        run, data, [(("l",), 0.0)], device=name, progress=False
    ),
    "evaluate_released": lambda name, data, run: released.evaluate_released(
        {}, replace(data, name="mosi"), device=name
    ),
    "load_model": lambda name, data, run: lnln.load_model(
        run / "model.safetensors", name
    ),
    "from_pretrained": lambda name, data, run: lnln.from_pretrained("mini", name),
    "predict": lambda name, data, run: lnln.predict(run, data, device=name),
    "open_study": lambda name, data, run: study.open_study(device=name),
    "try_method": lambda name, data, run: trial.try_method(
        "misa", "simulated:mini", 1, 0, name
    ),
    "fit_linear": lambda name, data, run: fit_linear(data, copies=1, device=name),
    "run_cell": lambda name, data, run: run_cell(cell_on(name, run / "cell")),
}


@pytest.mark.parametrize("name", TAKERS)
def test_an_unknown_device_is_refused(name: str, dataset: Dataset, run: Path) -> None:
    with pytest.raises(SettingsError, match="'tpu'.*choose from auto, cpu"):
        TAKERS[name]("tpu", dataset, run)


def test_every_public_function_that_takes_a_device_is_tried() -> None:
    found = {
        name
        for name in lnln.__all__
        if inspect.isfunction(function := getattr(lnln, name))
        and "device" in inspect.signature(function).parameters
    }
    assert found <= TAKERS.keys()


@pytest.mark.parametrize(
    "name", ["evaluate", "load_model", "from_pretrained", "open_study"]
)
@pytest.mark.parametrize("device", ["auto", "cuda:1"])
def test_models_are_put_where_they_are_asked_for(
    name: str,
    device: str,
    dataset: Dataset,
    run: Path,
    two_gpus: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[torch.device] = []

    def stay(self: torch.nn.Module, where: torch.device) -> torch.nn.Module:
        asked.append(where)
        return self

    monkeypatch.setattr(torch.nn.Module, "to", stay)
    TAKERS[name](device, dataset, run)
    assert asked == [torch.device("cuda" if device == "auto" else device)]


class Recorder:
    """Stands in for functions and keeps the devices that they are given."""

    def __init__(self) -> None:
        self.devices: dict[str, Any] = {}

    def of(self, name: str, instead: Any) -> Callable[..., Any]:
        def stand_in(*arguments: Any, **named: Any) -> Any:
            self.devices[name] = named.get("device", "not given")
            return instead(*arguments, **named)

        return stand_in


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Training and scoring on the CPU, whatever device was asked for."""
    seen = Recorder()

    def here(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *a, **n: function(*a, **{**n, "device": "cpu"})

    trained, scored = here(training.train), here(evaluation.evaluate)
    linear = here(fit_linear)
    monkeypatch.setattr(grid, "train", seen.of("train", trained))
    monkeypatch.setattr(trial, "train", seen.of("train", trained))
    monkeypatch.setattr(evaluation, "evaluate", seen.of("evaluate", scored))
    monkeypatch.setattr(trial, "evaluate", seen.of("evaluate", scored))
    monkeypatch.setattr(commands, "fit_linear", seen.of("linear", linear))
    yield seen


SMALL = ["--train-size", "40", "--epochs", "1", "--seeds", "1", "--mask-seeds", "0"]


@pytest.mark.parametrize(
    "command", [["compare", "--methods", "misa"], ["reproduce", "table5"]]
)
def test_a_grid_is_trained_and_scored_on_the_same_device(
    command: list[str], recorder: Recorder, two_gpus: None, tmp_path: Path
) -> None:
    rest = [*SMALL, "--quiet", "--out", str(tmp_path), "--device", "cuda:1"]
    assert main([*command, *rest]) == 0
    assert recorder.devices == {"train": "cuda:1", "evaluate": "cuda:1"}


def test_a_run_is_evaluated_beside_a_baseline_on_the_same_device(
    recorder: Recorder, two_gpus: None, run: Path, tmp_path: Path
) -> None:
    command = ["evaluate", str(run), "--linear", "--mask-seeds", "0", "--quiet"]
    assert main([*command, "--device", "cuda:1", "--out", str(tmp_path)]) == 0
    assert recorder.devices == {"evaluate": "cuda:1", "linear": "cuda:1"}


def test_a_trial_is_trained_and_scored_on_the_same_device(
    recorder: Recorder, two_gpus: None
) -> None:
    tried = trial.try_method("misa", "simulated:mini", 1, 0, device="cuda:1")
    assert recorder.devices == {"train": "cuda:1", "evaluate": "cuda:1"}
    # It is there to be looked into.
    assert next(tried.model.model.parameters()).device == torch.device("cpu")


def test_auto_is_settled_by_the_machine_that_computes(
    recorder: Recorder, tmp_path: Path
) -> None:
    run_cell(replace(cell_on("auto", tmp_path), preset=_quick()))
    assert recorder.devices == {"train": "auto", "evaluate": "auto"}


def test_a_device_that_a_worker_lacks_is_told_before_its_data_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def read(source: Source) -> Dataset:
        raise AssertionError("the data were read first")

    monkeypatch.setattr(grid, "open_source", read)
    with pytest.raises(SettingsError, match="'cuda:7'"):
        run_cell(cell_on("cuda:7", tmp_path))


def _quick() -> lnln.Preset:
    return with_train(PRESETS["mini"], epochs=1, validation_rates=(0.5,))


def test_a_chapter_with_a_parameter_for_it_gets_the_device(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from lnln.cli.grids import reproduce as cli_reproduce
    from lnln.paper.reproduce import EXHIBITS

    chapters = str(Path(__file__).parents[1] / "book")
    command = ["reproduce", "figure8", "--dry-run", "--out", str(tmp_path)]
    command += ["--chapters", chapters]
    exhibit = replace(EXHIBITS["figure8"], chapter="13_training")
    monkeypatch.setitem(cli_reproduce.EXHIBITS, "figure8", exhibit)
    assert main([*command, "--device", "cuda:1"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("device = cuda:1")
    looks_at_data = replace(exhibit, chapter="02_the_data")
    monkeypatch.setitem(cli_reproduce.EXHIBITS, "figure8", looks_at_data)
    assert main([*command, "--device", "cuda:1"]) == 0
    assert "device" not in capsys.readouterr().out


# A device without numbers: what is left on the CPU by mistake cannot be mixed with it.
META = torch.device("meta")


def test_what_is_drawn_on_the_cpu_erases_anywhere(dataset: Dataset) -> None:
    batch = dataset.test.batch
    found = erase(
        batch.to(META), fixed_rates(len(batch), 0.5), split_uniforms(batch, 0)
    )
    parts = [found.batch.tokens, found.batch.audio, found.nominal, found.realised]
    assert {part.device for part in [*parts, *found.kept.values()]} == {META}


@pytest.mark.parametrize("kind", ["random", "bursts", "whole", "imbalanced", "shift"])
def test_corruptions_damage_anywhere(kind: str, dataset: Dataset) -> None:
    batch = dataset.test.batch.to(META)
    damaged = CORRUPTIONS[kind].damage(batch, 0.5, ("l", "a", "v"), 0)
    assert damaged.erased().audio.device == META


def test_a_linear_baseline_computes_where_it_was_fitted(dataset: Dataset) -> None:
    fitted = fit_linear(dataset, copies=1)
    there = replace(fitted, weight=fitted.weight.to(META), words=fitted.words.to(META))
    assert there(dataset.test.batch).device == META


def fails_above(limit: int) -> tuple[Callable[..., Any], list[int]]:
    """A sweep's forward pass on a device that holds `limit` utterances."""
    sizes: list[int] = []

    def predict(self: Any, complete: Any, corruptions: Any) -> Any:
        sizes.append(len(complete))
        if len(complete) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        shape = (len(corruptions), len(complete))
        logits = (complete.labels + 0.25)[:, None] * torch.ones(31)
        return logits.expand(*shape, 31), torch.full(shape, 0.5)

    return predict, sizes


def some_corruptions(batch: lnln.Batch) -> list[tuple[torch.Tensor, Uniforms]]:
    draws = split_uniforms(batch, 0)
    return [(fixed_rates(len(batch), rate), draws) for rate in (0.1, 0.5)]


def test_a_sweep_goes_on_in_halves_when_memory_runs_out(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, batch = lnln.from_pretrained(), dataset.test.batch
    predict, sizes = fails_above(40)
    monkeypatch.setattr(type(trained.model), "predict_corruptions", predict)
    found: list[Predictions] = trained.sweep(batch, some_corruptions(batch), 256)
    for part in found:
        assert torch.equal(part.answer[:, 30], batch.labels + 0.25)
        assert torch.equal(part.completeness, torch.full((len(batch),), 0.5))
    # 128 and 64 fail once each; nothing that succeeded is done again.
    assert sizes[:3] == [128, 64, 32]
    assert sum(size for size in sizes if size <= 40) == len(batch)


def test_halves_of_a_group_give_the_numbers_of_the_whole(dataset: Dataset) -> None:
    trained, batch = lnln.from_pretrained(), dataset.test.batch
    corruptions = some_corruptions(batch)
    one, two = (trained.sweep(batch, corruptions, size) for size in (256, 16))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a.sentiment, b.sentiment, rtol=0, atol=1e-5)


def test_memory_for_not_even_one_utterance_is_told(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, batch = lnln.from_pretrained(), dataset.test.batch
    predict, _ = fails_above(0)
    monkeypatch.setattr(type(trained.model), "predict_corruptions", predict)
    with pytest.raises(DeviceMemoryError, match="one utterance.*--device cpu"):
        trained.sweep(batch, some_corruptions(batch))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            ("--batch-size", "--bf16", "--freeze-encoder"),
        ),
        (
            RuntimeError("put_ does not have a deterministic implementation, but ..."),
            ("lnln uses put_, which does not repeat", "--device cpu"),
        ),
    ],
    ids=["memory", "repeating"],
)
def test_training_says_what_to_do_where_a_device_fails(
    error: Exception,
    told: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def step(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(training, "_step", step)
    command = ["train", "--train-size", "40", "--out", str(tmp_path), "--quiet"]
    assert main([*command, "--device", "cpu"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(part in line for part in told)
