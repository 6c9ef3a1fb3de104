"""Chance: every purpose has a stream of its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lnln.missing.corruption
import lnln.training.loop
from lnln import PRESETS, simulate, train
from lnln.missing.corruption import CORRUPTIONS
from lnln.missing.erasing import split_uniforms
from lnln.missing.streams import PURPOSES, stream, stream_seed
from lnln.training.settings import with_train


def test_a_stream_repeats_and_no_two_are_alike() -> None:
    places = [(1111, p, e) for p in PURPOSES for e in range(50)]
    seeds = {
        stream_seed(*place) for place in (*places, *((1112, *p[1:]) for p in places))
    }
    assert len(seeds) == 2 * len(places)
    draws = [torch.rand(4, generator=stream(1111, "masks", 3)) for _ in range(2)]
    assert torch.equal(*draws)


@pytest.mark.parametrize("masks", ["redrawn", "mixed", "released"])
def test_what_is_drawn_in_training_comes_from_streams_apart(
    masks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[int]] = {}

    def spy(module: Any, name: str, purpose: str) -> None:
        original = getattr(module, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            (generator,) = (a for a in args if isinstance(a, torch.Generator))
            # Those of a batch are the rates of wrong words.
            of_batch = name == "training_rates" and args[0] == 32
            own = "words" if of_batch else purpose
            seen.setdefault(own, []).append(generator.initial_seed())
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    def watched_order(*args: Any, generator: torch.Generator) -> Tensor:
        seen.setdefault("order", []).append(generator.initial_seed())
        seen.setdefault("dropout", []).append(torch.initial_seed())
        return original_order(*args, generator=generator)

    original_order = torch.randperm
    loop, corruption = lnln.training.loop, lnln.missing.corruption
    for module, name, purpose in (
        (corruption, "replace_words", "words"),
        (corruption, "training_rates", "words"),
        (loop, "training_rates", "rates"),
        (loop, "draw_uniforms", "masks"),
    ):
        spy(module, name, purpose)
    monkeypatch.setattr(lnln.training.loop.torch, "randperm", watched_order)
    preset = with_train(PRESETS["mini"], epochs=2, batch_size=32, masks=masks)
    train(preset, simulate("mini", 1, 64), tmp_path, device="cpu", progress=False)
    wanted = {"order", "dropout", "rates"}
    wanted |= {"masks"} if masks != "released" else set()
    wanted |= {"words"} if masks == "mixed" else set()
    assert {name for name, seeds in seen.items() if seeds} == wanted
    distinct = {seed for seeds in seen.values() for seed in seeds}
    assert preset.train.seed not in distinct
    epochs = {name: len(set(seeds)) for name, seeds in seen.items()}
    assert len(distinct) == sum(epochs.values()), "two purposes share a stream"
    assert epochs["order"] == epochs["dropout"] == 2
    assert epochs["rates"] == (1 if masks == "released" else 2)


def test_rates_are_not_the_numbers_behind_the_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Tensor] = {}
    for name in ("training_rates", "draw_uniforms"):
        original = getattr(lnln.training.loop, name)

        def keep(*args: Any, _name: str = name, _original: Any = original) -> Any:
            drawn = _original(*args)
            flat = drawn if _name == "training_rates" else drawn.l
            found.setdefault(_name, flat.flatten())
            return drawn

        monkeypatch.setattr(lnln.training.loop, name, keep)
    preset = with_train(PRESETS["mini"], epochs=1, batch_size=64)
    train(preset, simulate("mini", 1, 64), tmp_path, device="cpu", progress=False)
    rates, masks = found["training_rates"], found["draw_uniforms"]
    size = min(len(rates), len(masks))
    drawn = rates[:size] > 0
    assert drawn.sum() > 50
    assert not (rates[:size] == masks[:size])[drawn].any()


def test_which_modality_loses_most_does_not_follow_from_the_masks() -> None:
    batch = simulate("mini", 1, 8).test.batch
    rates = CORRUPTIONS["imbalanced"].damage(batch, 0.4, ("l", "a", "v"), 3).rates
    first = split_uniforms(batch, 3).l.flatten()[: 3 * len(batch)].view(-1, 3)
    ranks = rates.argsort(dim=1).argsort(dim=1)
    same = (ranks == first.argsort(dim=1)).all(dim=1).float().mean()
    assert float(same) == pytest.approx(1 / 6, abs=0.08)
