"""Other ways to damage: what each does, and that the limit of each holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lnln.models.lnln
from lnln import (
    PRESETS,
    Batch,
    Dataset,
    bayes_limit,
    conditions,
    lnln_losses,
    posterior,
    simulate,
    train,
)
from lnln.cli.main import main
from lnln.data.batch import CLS, MODALITIES, SEP, UNK
from lnln.data.simulated.corpus import GRID
from lnln.evaluation.sweep import BAYES, BOUND, read_csv, reference_rows
from lnln.missing.corruption import CORRUPTIONS, Damaged, replace_words
from lnln.missing.erasing import erasable, erase
from lnln.training.scoring.metrics import METRICS
from lnln.training.settings import with_train

ALL = ("l", "a", "v")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulate("mini", 5, 1500)


@pytest.fixture(scope="module")
def batch(dataset: Dataset) -> Batch:
    return dataset.train.batch


def damage(name: str, batch: Batch, level: float, seed: int = 0) -> Damaged:
    return CORRUPTIONS[name].damage(batch, level, ALL, seed)


def same(a: Batch, b: Batch) -> bool:
    return all(
        torch.equal(getattr(a, f), getattr(b, f))
        for f in ("tokens", "audio", "vision", "token_lengths")
    )


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_0_changes_nothing_and_a_seed_repeats(name: str, batch: Batch) -> None:
    assert same(damage(name, batch, 0.0).erased(), batch)
    once, again = (damage(name, batch, 0.5, 3).erased() for _ in range(2))
    assert same(once, again)
    assert not same(once, damage(name, batch, 0.5, 4).erased())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_is_not_available_is_gone(name: str, batch: Batch) -> None:
    left = CORRUPTIONS[name].damage(batch, 0.4, ("a",), 0).erased()
    assert not left.vision.any() and left.audio.any()
    words = left.tokens[erasable(left, "l")]
    assert (words == UNK).all()


def test_bursts_have_one_gap(batch: Batch) -> None:
    damaged = damage("bursts", batch, 0.4)
    kept = erase(damaged.batch, damaged.rates, damaged.uniforms).kept
    for m in MODALITIES:
        can_go = erasable(batch, m)
        for row, places in zip(kept[m][:200], can_go[:200], strict=True):
            stays = row[places]
            gaps = (stays & ~stays.roll(-1)).sum()  # ends of stretches, going round
            assert gaps <= 1
            assert abs((~stays).sum() - 0.4 * len(stays)) <= 0.5


def test_whole_modalities_are_there_or_not(batch: Batch) -> None:
    damaged = damage("whole", batch, 0.3)
    erased = erase(damaged.batch, damaged.rates, damaged.uniforms)
    assert set(erased.realised.unique().tolist()) == {0.0, 1.0}
    gone = (erased.realised == 0).float()
    assert gone.mean() == pytest.approx(0.3, abs=0.03)
    assert np.corrcoef(gone.T.numpy())[0, 1] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_imbalanced_rates_differ_and_have_the_mean(rate: float, batch: Batch) -> None:
    rates = damage("imbalanced", batch, rate).rates
    torch.testing.assert_close(rates.mean(dim=1), torch.full((len(batch),), rate))
    assert (rates.std(dim=1) > 0.05).all()
    assert rates.mean(dim=0).std() < 0.02


def test_word_errors_leave_no_unk_and_make_the_rate(batch: Batch) -> None:
    heard = damage("words", batch, 0.4).erased()
    assert not (heard.tokens == UNK).any()
    assert (heard.tokens[:, 0] == CLS).all()
    last = heard.tokens.gather(1, heard.token_lengths[:, None] - 1)
    assert (last == SEP).all()
    wrong = total = 0
    for i in range(300):
        a = batch.tokens[i, 1 : batch.token_lengths[i] - 1].tolist()
        b = heard.tokens[i, 1 : heard.token_lengths[i] - 1].tolist()
        wrong, total = wrong + edits(a, b), total + len(a)
    # A word may be replaced by itself, and two errors may look like one.
    assert wrong / total == pytest.approx(0.38, abs=0.04)


def edits(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, previous + (x != y)),
            )
    return row[-1]


def test_noise_has_the_strength_that_is_told(batch: Batch) -> None:
    noisy = damage("noise", batch, 0.25).erased()
    mask = batch.mask("v")
    added = (noisy.vision - batch.vision)[mask]
    torch.testing.assert_close(
        added.std(dim=0), batch.vision[mask].std(dim=0), rtol=0.05, atol=0
    )
    assert not (noisy.vision - batch.vision)[~mask].any()


def test_a_shift_keeps_all_frames_and_what_they_tell(batch: Batch) -> None:
    some = batch.select(torch.arange(100))
    moved = damage("shift", some, 0.6).erased()
    assert not torch.equal(moved.audio, some.audio)
    for frames, other in zip(moved.audio, some.audio, strict=True):
        assert sorted(frames[:, 0].tolist()) == sorted(other[:, 0].tolist())
    np.testing.assert_allclose(posterior(moved), posterior(some), atol=1e-3)


@pytest.mark.parametrize("name", [n for n, c in CORRUPTIONS.items() if c.exact])
def test_the_posterior_is_calibrated_where_it_is_called_exact(
    name: str, batch: Batch
) -> None:
    p = posterior(damage(name, batch, 0.6).erased())
    chance = p[:, GRID > 0].sum(axis=1)
    truth = (batch.labels > 0).float().numpy()
    for low in (0.0, 0.25, 0.5, 0.75):
        inside = (chance >= low) & (chance < low + 0.25)
        error = 4 * np.sqrt(0.25 / inside.sum())
        assert abs(truth[inside].mean() - chance[inside].mean()) < error


@pytest.mark.parametrize("name", [n for n, c in CORRUPTIONS.items() if not c.exact])
def test_the_bound_is_that_of_the_intact_data(name: str, dataset: Dataset) -> None:
    batch = dataset.test.batch
    limit = bayes_limit(batch, 0.0)
    bound = bayes_limit(batch, 0.7, corruption=name)
    # Of distributions only what is read off them is a bound.
    assert bound == {m: limit[m] for m in METRICS["mosi"]}
    wanted = conditions([0.5])
    methods = set(reference_rows(dataset, wanted, corruption=name).method)
    assert BOUND in methods and BAYES not in methods


def test_the_released_masks_are_of_the_papers_corruption_only(batch: Batch) -> None:
    with pytest.raises(ValueError, match="'random' only"):
        CORRUPTIONS["noise"].damage(batch, 0.5, ALL, "released")


def test_evaluate_takes_a_corruption(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path_factory.mktemp("runs") / "run"
    common = ["--train-size", "60", "--quiet", "--device", "cpu"]
    assert main(["train", "--epochs", "1", "--out", str(run), *common]) == 0
    for name in ("words", "bursts"):
        command = ["evaluate", str(run), "--corruption", name, "--mask-seeds", "0"]
        assert main([*command, "--quiet", "--device", "cpu"]) == 0
        scores = read_csv(run / f"robustness-{name}.csv")
        assert set(scores.corruption) == {name}
        assert (run / f"robustness-{name}.png").stat().st_size > 10_000
        assert f"robustness-{name}.csv" in capsys.readouterr().out


def test_replaced_words_are_other_words_and_counted(batch: Batch) -> None:
    rates = torch.full((len(batch),), 0.5)
    heard, kept = replace_words(batch, rates, torch.Generator().manual_seed(0))
    changed = heard.tokens != batch.tokens
    assert not changed[~erasable(batch, "l")].any()
    words = erasable(batch, "l").sum(dim=1)
    # A word that is replaced by itself is counted as replaced.
    assert (1 - changed.sum(dim=1) / words >= kept - 1e-6).all()
    assert kept.mean() == pytest.approx(0.5, abs=0.02)
    assert torch.equal(heard.token_lengths, batch.token_lengths)
    none, all_kept = replace_words(batch, 0 * rates, torch.Generator())
    assert torch.equal(none.tokens, batch.tokens) and (all_kept == 1).all()


def completeness_targets(dataset: Dataset, masks: str, folder: Path) -> Tensor:
    """What the completeness check is to say in an epoch of training."""
    seen: list[Tensor] = []

    def spy(output: Any, labels: Tensor, completeness: Tensor, weights: Any) -> Any:
        seen.append(completeness)
        return lnln_losses(output, labels, completeness, weights)

    preset = with_train(PRESETS["mini"], epochs=1, masks=masks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lnln.models.lnln, "lnln_losses", spy)
        train(preset, dataset, folder, progress=False, device="cpu")
    return torch.cat(seen)


def test_mixed_training_repeats_and_lowers_the_target(
    dataset: Dataset, tmp_path: Path
) -> None:
    targets = completeness_targets(dataset, "mixed", tmp_path / "one")
    again = completeness_targets(dataset, "mixed", tmp_path / "two")
    assert torch.equal(targets, again)
    # Erasing alone leaves a mean of 3/4, and replacing as much again 3/4 of that.
    assert targets.mean() == pytest.approx(9 / 16, abs=0.03)


def test_the_realised_target_is_a_share_of_words(
    dataset: Dataset, tmp_path: Path
) -> None:
    nominal = completeness_targets(dataset, "redrawn", tmp_path / "nominal")
    realised = completeness_targets(dataset, "realised", tmp_path / "realised")
    assert torch.equal(nominal == 1, (nominal == 1) & (realised == 1))
    words = int(erasable(dataset.train.batch, "l").sum(dim=1).max())
    shares = {k / n for n in range(1, words + 1) for k in range(n + 1)}
    off = [min(abs(x - share) for share in shares) for x in realised.tolist()]
    assert max(off) < 1e-6
    error = (nominal - realised).abs()
    assert 0.02 < error.mean() < 0.2 and (nominal.mean() - realised.mean()).abs() < 0.02
