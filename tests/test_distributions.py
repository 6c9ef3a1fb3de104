"""Answers that are distributions: read-outs, scores, loss, and all methods."""

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

import lnln
from lnln.cli.main import main
from lnln.data.batch import LABEL_VALUES, Batch, Dataset, Split
from lnln.data.errors import SettingsError
from lnln.evaluation.sweep import conditions, evaluate
from lnln.models import METHODS, build_model, title_of
from lnln.models.blocks.answers import label_values, mean_of, shares, task_loss
from lnln.models.method import Method, ModelConfig, Prediction, Step
from lnln.training.checkpoint import (
    read_tensors,
    save_model,
    write_tensors,
)
from lnln.training.presets import preset_for
from lnln.training.scoring.distributions import (
    DISTRIBUTION_SCORES,
    best_scores,
    distribution_scores,
    pit_histogram,
    read_out,
    spread,
)
from lnln.training.scoring.metrics import CLASSIFIERS, METRICS, evaluate_predictions
from lnln.training.scoring.predictions import Predictions
from lnln.training.settings import with_train

Floats = NDArray[np.float64]
SCHEMES = ("mosi", "sims")
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
every_method = pytest.mark.parametrize("name", METHODS)


@st.composite
def distributions(draw: st.DrawFn, scheme: str) -> Floats:
    """Probabilities of the K values; ties and values without any mass are common."""
    count = len(LABEL_VALUES[scheme])
    weights = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    weights[draw(st.integers(0, count - 1))] += 1  # something has to have mass
    return np.array(weights) / sum(weights)


def on(**mass: float) -> Floats:
    """A distribution over MOSI's values: `on(m02=0.5, p10=0.5)` is on -0.2 and 1."""
    p = np.zeros(31)
    for name, share in mass.items():
        value = int(name[1:]) / 10 * (-1 if name[0] == "m" else 1)
        p[round(value * 5) + 15] = share
    return p


# Read-outs


def worth(metric: str, number: float, p: Floats, scheme: str) -> float:
    """The expected score of a number where labels are drawn from p, larger better."""
    values = LABEL_VALUES[scheme]
    if metric == "mae":
        return -float(p @ abs(values - number))
    of = CLASSIFIERS[scheme][metric]
    counted = values != 0 if metric == "acc2_neg_pos" else np.full(len(values), True)
    return float(p[counted & (of(values) == of(np.array([number])))].sum())


@every_scheme
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_no_number_serves_a_metric_better_than_its_read_out(
    scheme: str, data: st.DataObject
) -> None:
    p = data.draw(distributions(scheme))
    values = LABEL_VALUES[scheme]
    rivals = [*values, *(values[:-1] + values[1:]) / 2, float(p @ values)]
    for metric in ("mae", *CLASSIFIERS[scheme]):
        (number,) = read_out(p[None], metric, scheme)
        best = worth(metric, number, p, scheme)
        for rival in rivals:
            assert best >= worth(metric, rival, p, scheme) - 1e-9, (metric, rival)


@every_scheme
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_no_answers_correlate_better_with_the_labels_than_the_means(
    scheme: str, data: st.DataObject
) -> None:
    p = np.stack([data.draw(distributions(scheme)) for _ in range(5)])
    values = LABEL_VALUES[scheme]
    # Five utterances and all labels that they can have, each as often as it comes.
    weights, labels = p.ravel() / 5, np.tile(values, 5)

    def correlation(answers: Floats) -> float:
        x = np.repeat(answers, len(values))
        x, y = x - weights @ x, labels - weights @ labels
        size = math.sqrt((weights @ x**2) * (weights @ y**2))
        return float(weights @ (x * y)) / size if size > 1e-9 else 0.0

    best = correlation(read_out(p, "corr", scheme))
    rng = np.random.default_rng(0)
    rivals = [read_out(p, m, scheme) for m in ("mae", *CLASSIFIERS[scheme])]
    for rival in [*rivals, *rng.normal(size=(20, 5))]:
        assert best >= correlation(rival) - 1e-9


def test_read_outs_by_hand() -> None:
    p = on(m20=0.4, p00=0.25, p10=0.05, p20=0.1, p24=0.2)[None]
    read = {m: float(read_out(p, m)[0]) for m in METRICS["mosi"]}
    assert read["mae"] == 0  # 0.4 of the mass lies below it, 0.35 above
    assert read["corr"] == pytest.approx(-0.8 + 0.05 + 0.2 + 0.48)
    assert read["acc7"] == -2 and -3 <= read["acc5"] <= -1.6
    assert -3 <= read["acc3"] <= -0.6  # class -1 has 0.4, class 1 has 0.35
    assert read["acc2_neg_pos"] < 0  # 0 does not count: 0.4 against 0.35
    assert read["acc2_neg_nonneg"] >= 0  # here it does: 0.4 against 0.6
    assert read["f1_neg_pos"] == read["acc2_neg_pos"]
    assert read["f1_neg_nonneg"] == read["acc2_neg_nonneg"]


@every_scheme
def test_what_is_certain_is_read_the_same_by_all_metrics(scheme: str) -> None:
    values = LABEL_VALUES[scheme]
    p = np.eye(len(values))
    scores = best_scores(p, values, scheme)
    assert scores.pop("mae") == 0
    assert all(score == pytest.approx(1) for score in scores.values())
    assert not spread(p, scheme).any()


@every_scheme
def test_predictions_are_scored_at_the_read_outs(scheme: str) -> None:
    values = LABEL_VALUES[scheme]
    rng = np.random.default_rng(3)
    logits = torch.tensor(rng.normal(0, 2, (40, len(values))), dtype=torch.float32)
    labels = torch.tensor(rng.choice(values, 40), dtype=torch.float32)
    told = Predictions(logits, torch.full((40,), 0.5))
    p = told.probabilities
    assert p is not None
    np.testing.assert_allclose(p, np.exp(np.log(p)) / p.sum(axis=1, keepdims=True))
    torch.testing.assert_close(
        told.sentiment, torch.from_numpy(p @ values).float(), atol=1e-5, rtol=0
    )
    true = labels.double().numpy().round(4)
    scores = told.scores(labels, scheme)
    for metric in METRICS[scheme]:
        number = read_out(p, metric, scheme)
        assert scores[metric] == evaluate_predictions(number, true, scheme)[metric]
        assert torch.equal(told.read(metric, scheme), torch.from_numpy(number).float())
    point = Predictions(labels, torch.full((40,), 0.5))
    assert point.probabilities is None and torch.equal(point.read("acc7"), labels)
    assert torch.equal(point.sentiment, labels)
    assert point.scores(labels, scheme)["mae"] == 0


# Labels as distributions, and the loss


@every_scheme
@given(y=st.floats(-1, 1))
def test_a_label_is_shared_and_its_mean_is_kept(scheme: str, y: float) -> None:
    values = torch.from_numpy(LABEL_VALUES[scheme])
    label = torch.tensor([y * float(values[-1])], dtype=torch.float64)
    (share,) = shares(label, values)
    assert float(share.sum()) == pytest.approx(1) and bool((share >= 0).all())
    step = float(values[1] - values[0])
    # What is within a ten-thousandth of a step belongs to the value.
    assert float(share @ values) == pytest.approx(float(label), abs=1.01e-4 * step)
    used = share.nonzero().flatten().tolist()
    assert used == list(range(used[0], used[0] + len(used))) and len(used) <= 2


@every_scheme
def test_labels_on_the_grid_are_certain_in_both_precisions(scheme: str) -> None:
    values = LABEL_VALUES[scheme]
    for kind in (torch.float32, torch.float64):
        grid = torch.tensor(values, dtype=kind)
        assert torch.equal(shares(grid, grid), torch.eye(len(values), dtype=kind))


def test_labels_between_and_beyond_the_values_by_hand() -> None:
    values = torch.from_numpy(LABEL_VALUES["mosi"])
    third, beyond = shares(torch.tensor([1 / 3, 3.5], dtype=torch.float64), values)
    expected = on(p02=1 / 3, p04=2 / 3)
    np.testing.assert_allclose(third.numpy(), expected, atol=1e-9)
    assert beyond.tolist() == on(p30=1.0).tolist()


@pytest.mark.parametrize("error", [mse_loss, l1_loss])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_the_loss_of_numbers_is_the_methods_own(error: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    answer, labels = torch.randn(2, 7, generator=generator)
    assert torch.equal(task_loss(answer, labels, error), error(answer, labels))


@every_scheme
def test_the_loss_of_logits_is_their_cross_entropy(scheme: str) -> None:
    values = LABEL_VALUES[scheme]
    count, step = len(values), values[1] - values[0]
    logits = torch.randn(2, count, generator=torch.Generator().manual_seed(0))
    # The first label is the fourth value, the second lies between the first two.
    labels = torch.tensor([values[3], values[0] + 0.25 * step], dtype=torch.float32)
    log_p = logits.double() - logits.double().exp().sum(dim=1, keepdim=True).log()
    by_hand = -(log_p[0, 3] + 0.75 * log_p[1, 0] + 0.25 * log_p[1, 1]) / 2
    loss = task_loss(logits, labels, l1_loss)
    assert float(loss) == pytest.approx(float(by_hand), abs=1e-5)
    even = task_loss(torch.zeros(2, count), labels, l1_loss)
    assert float(even) == pytest.approx(math.log(count), abs=1e-5)


def test_values_are_told_from_how_many_there_are() -> None:
    for scheme in SCHEMES:
        values = LABEL_VALUES[scheme]
        told = label_values(torch.zeros(2, len(values), dtype=torch.float64))
        assert told.tolist() == values.tolist()
    # Much on the last value: the mean is nearly that value.
    logits = torch.zeros(1, 21)
    logits[0, -1] = 30
    assert float(mean_of(logits)) == pytest.approx(1)


# Scores of distributions


def test_scores_of_a_distribution_by_hand() -> None:
    p = on(m02=0.5, p02=0.25, p04=0.25)[None]
    scores = distribution_scores(p, np.array([0.2]))
    assert scores["log_score"] == pytest.approx(math.log(4))
    # The steps from -0.2 on: 0.5 below the label twice, 0.25 above it once.
    assert scores["crps"] == pytest.approx(0.2 * (0.25 + 0.25 + 0.0625))
    # The label reaches from 0.5 to 0.75, all inside of 0.1 to 0.9.
    assert scores["coverage"] == 1
    # From 0.75 to 1: three fifths are inside.
    last = distribution_scores(p, np.array([0.4]))
    assert last["coverage"] == pytest.approx(0.6)
    # A label between two values counts for both in part.
    between = distribution_scores(p, np.array([0.25]))
    assert between["log_score"] == pytest.approx(math.log(4))
    half = distribution_scores(p, np.array([-0.1]))
    assert half["log_score"] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(1e12))
    assert set(scores) | {"divergence"} == set(DISTRIBUTION_SCORES)


@every_scheme
def test_crps_of_certainty_is_the_absolute_error(scheme: str) -> None:
    values = LABEL_VALUES[scheme]
    for place, value in enumerate(values):
        p = np.tile(np.eye(len(values))[place], (len(values), 1))
        scores = distribution_scores(p, values, scheme)
        assert scores["crps"] == pytest.approx(abs(values - value).mean())


@every_scheme
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_crps_is_its_form_by_expectations(scheme: str, data: st.DataObject) -> None:
    """E|X - y| - E|X - X'| / 2, where X and X' are drawn from p."""
    p, values = data.draw(distributions(scheme)), LABEL_VALUES[scheme]
    label = data.draw(st.sampled_from(list(values)))
    apart = p @ abs(values[:, None] - values) @ p
    expected = p @ abs(values - label) - apart / 2
    scores = distribution_scores(p[None], np.array([label]), scheme)
    assert scores["crps"] == pytest.approx(expected, abs=1e-9)


def in_expectation(score: str, p: Floats, q: Floats, scheme: str) -> float:
    """The mean score of q where labels are drawn from p."""
    values = LABEL_VALUES[scheme]
    each = [distribution_scores(q[None], np.array([v]), scheme)[score] for v in values]
    return float(p @ each)


@every_scheme
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_where_labels_come_from_the_distribution_its_scores_are_right(
    scheme: str, data: st.DataObject
) -> None:
    p, q = data.draw(distributions(scheme)), data.draw(distributions(scheme))
    assert in_expectation("coverage", p, p, scheme) == pytest.approx(0.8)
    values = LABEL_VALUES[scheme]
    each = [pit_histogram(p[None], np.array([v]), scheme) for v in values]
    np.testing.assert_allclose(p @ np.array(each), np.ones(10), atol=1e-6)
    # Nothing is gained by saying another distribution than one believes.
    for score in ("log_score", "crps"):
        honest = in_expectation(score, p, p, scheme)
        assert honest <= in_expectation(score, p, q, scheme) + 1e-9
    none = distribution_scores(p[None], values[:1], scheme, exact=p[None])
    assert none["divergence"] == pytest.approx(0, abs=1e-12)
    gap = in_expectation("log_score", p, q, scheme) - in_expectation(
        "log_score", p, p, scheme
    )
    told = distribution_scores(q[None], values[:1], scheme, exact=p[None])
    assert told["divergence"] == pytest.approx(gap, abs=1e-9) and gap > -1e-9


@every_scheme
def test_a_transform_outside_of_all_mass_is_in_the_first_or_the_last_part(
    scheme: str,
) -> None:
    values = LABEL_VALUES[scheme]
    certain = np.eye(len(values))[[5]]
    first, last = np.eye(10)[[0, -1]] * 10
    for label, expected in (
        (values[5], np.ones(10)),
        (values[2], first),
        (values[9], last),
    ):
        bars = pit_histogram(certain, np.array([label]), scheme)
        np.testing.assert_allclose(bars, expected, atol=1e-9)
    held = distribution_scores(certain, values[[9]], scheme)["coverage"]
    assert held == 0


def test_a_spread_too_narrow_or_too_wide_shows_in_the_transform() -> None:
    values = LABEL_VALUES["mosi"]

    def bell(width: float) -> Floats:
        p = np.exp(-(values**2) / (2 * width**2))
        return np.asarray(p / p.sum())

    labels = np.random.default_rng(0).choice(values, 2000, p=bell(1.0))
    found = {}
    for width in (0.5, 1.0, 2.0):
        p = np.tile(bell(width), (2000, 1))
        found[width] = pit_histogram(p, labels)
        assert found[width].mean() == pytest.approx(1)
        covered = distribution_scores(p, labels)["coverage"]
        assert math.copysign(1, covered - 0.8) == math.copysign(1, width - 1.0) or (
            width == 1.0 and covered == pytest.approx(0.8, abs=0.02)
        )
    assert abs(found[1.0] - 1).max() < 0.2
    assert min(found[0.5][[0, -1]]) > 1.5 and max(found[0.5][4:6]) < 0.8
    assert max(found[2.0][[0, -1]]) < 0.5 and min(found[2.0][4:6]) > 1.2


def test_spread_is_a_standard_deviation_in_units_of_the_label() -> None:
    assert spread(on(m10=0.5, p10=0.5)[None]) == pytest.approx(1)
    assert spread(on(p02=0.25, p06=0.75)[None]) == pytest.approx(0.4 * 0.75**0.5 / 2)


def test_the_exact_posterior_covers_fresh_data_of_the_training_prior() -> None:
    batch = lnln.simulate("mini", 5, 3000).train.batch
    rates = lnln.fixed_rates(len(batch), 0.5)
    left = lnln.erase(batch, rates, lnln.split_uniforms(batch, 0)).batch
    p, labels = lnln.posterior(left), batch.labels.double().numpy().round(1)
    scores = distribution_scores(p, labels, exact=p)
    assert scores["coverage"] == pytest.approx(0.8, abs=0.02)
    assert scores["divergence"] == pytest.approx(0, abs=1e-12)
    assert abs(pit_histogram(p, labels) - 1).max() < 0.2


# All methods


def step_of(model: Method, batch: Batch) -> Step:
    """The first batch of the stage of an epoch that trains the answer."""
    complete = model.trim(batch)
    rates = lnln.fixed_rates(len(batch), 0.3)
    erased = lnln.erase(complete, rates, lnln.split_uniforms(complete, 0))
    stage = model.stage_of(f"{model.last}.weight")
    return Step(complete, erased, torch.arange(len(batch)), 1, 0, stage, model)


def pair(name: str) -> tuple[Method, Method]:
    """A method that answers with a number, and the same with a distribution."""
    config = preset_for(name, "mini").model
    models = []
    for size in (1, 31):
        torch.manual_seed(7)
        models.append(build_model(replace(config, answer_size=size)).eval())
    return models[0], models[1]


@pytest.fixture(scope="module")
def few() -> Batch:
    return lnln.simulate("mini", 2, 24).train.batch


@every_method
def test_all_weights_but_the_last_maps_are_those_of_the_point_model(
    name: str, few: Batch
) -> None:
    point, wide = pair(name)
    assert wide.get_submodule(wide.last).out_features == 31
    one, other = point.state_dict(), wide.state_dict()
    own = {f"{wide.last}.weight", f"{wide.last}.bias"}
    assert own < one.keys() and one.keys() == other.keys()
    for key in one.keys() - own:
        assert torch.equal(one[key], other[key]), key
    with torch.no_grad():
        number, told = point(point.trim(few)), wide(wide.trim(few))
    assert number.answer.shape == number.sentiment.shape == (24,)
    assert told.answer.shape == (24, 31) and told.sentiment.shape == (24,)
    expected = told.answer.softmax(dim=1) @ label_values(told.answer)
    assert torch.equal(told.sentiment, expected)


@every_method
def test_a_step_lowers_the_cross_entropy(name: str, few: Batch) -> None:
    _, model = pair(name)
    model.begin(few.labels)
    step = step_of(model, few)

    def cross_entropy() -> Tensor:
        answer = model(step.erased.batch).answer
        return task_loss(answer, few.labels, l1_loss)

    before = cross_entropy().item()
    # TF-Mamba reads a maximum over time, which is large from the start.
    apart = 1.2 if name == "tf_mamba" else 0.6
    assert before == pytest.approx(math.log(31), abs=apart)
    losses = model.losses(step)
    losses["total"].backward()
    size = nn.utils.get_total_norm(
        [p.grad for p in model.parameters() if p.grad is not None]
    )
    torch.optim.SGD(model.parameters(), lr=0.02 / size.item()).step()
    assert cross_entropy().item() < before


def small(data: Dataset, count: int) -> Dataset:
    """Data of which only the first utterances are validated and tested on."""
    splits = dict(data.splits)
    for name in ("valid", "test"):
        batch = splits[name].batch.select(torch.arange(count))
        ids, texts = splits[name].ids[:count], splits[name].raw_text[:count]
        splits[name] = Split(batch, ids, texts)
    return replace(data, splits=splits)


@every_method
def test_a_run_is_trained_stored_loaded_and_scored(name: str, tmp_path: Path) -> None:
    data = small(lnln.simulate("mini", 1, 40), 20)
    preset = with_train(preset_for(name, "mini"), epochs=1, answer="distribution")
    record = lnln.train(preset, data, tmp_path / "run", progress=False)
    assert record["preset"]["model"]["answer_size"] == 31
    loaded = lnln.load_model(tmp_path / "run" / "model.safetensors")
    assert loaded.preset.train.answer == "distribution"
    batch = data.test.batch
    rates, uniforms = lnln.fixed_rates(20, 0.5), lnln.split_uniforms(batch, 0)
    told = loaded.predict(batch, rates, uniforms)
    assert told.answer.shape == (20, 31)
    save_model(tmp_path / "again.safetensors", loaded)
    again = lnln.load_model(tmp_path / "again.safetensors")
    assert torch.equal(again.predict(batch, rates, uniforms).answer, told.answer)
    scores = evaluate(
        tmp_path / "run", data, conditions((0.5,)), mask_seeds=(0,), progress=False
    )
    assert scores["method"].unique().tolist() == [title_of(name, "distribution")]
    found = scores.set_index("metric")["value"]
    assert set(found.index) > {*METRICS["mosi"], *DISTRIBUTION_SCORES}
    assert found["divergence"] > 0 and found["log_score"] > 0


# What does not fit


@dataclass(frozen=True)
class LonelyConfig(ModelConfig):
    method: ClassVar[str] = "test_distributions:Lonely"


class Lonely(Method):
    """A method of one's own that does not end in a linear map."""

    config_type = LonelyConfig

    def __init__(self, config: Any, architecture: Any = None) -> None:
        super().__init__(config, architecture)
        self.scale = nn.Parameter(torch.ones(self.text_encoder.width))

    def forward(self, batch: Batch) -> Prediction:
        text = self.text_encoder(batch.tokens, batch.token_lengths)
        return Prediction(text[:, 0] @ self.scale, {})

    def losses(self, step: Step) -> dict[str, Tensor]:
        answer = step.forward(step.erased.batch).answer
        return {"total": (answer - step.labels).square().mean()}


class Wide(Lonely):
    """Another whose `head` gives two numbers."""

    def __init__(self, config: Any, architecture: Any = None) -> None:
        super().__init__(config, architecture)
        self.head = nn.Linear(self.text_encoder.width, 2)


@pytest.mark.parametrize("kind", [Lonely, Wide])
def test_a_method_without_a_last_linear_map_says_what_to_do(
    kind: type[Lonely], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = preset_for("lnln", "mini").model.encoder
    config = LonelyConfig(encoder=encoder)
    monkeypatch.setattr("lnln.models.method_class", lambda name: kind)
    assert isinstance(build_model(config), Lonely)
    with pytest.raises(
        SettingsError, match=f"{kind.__name__} has no linear map 'head'"
    ):
        build_model(replace(config, answer_size=31))


def test_the_command_line_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--method", LonelyConfig.method, "--answer", "distribution"]
    command += ["--epochs", "1", "--train-size", "40", "--out", str(tmp_path / "run")]
    assert main([*command, "--quiet", "--device", "cpu"]) == 1
    said = capsys.readouterr().err.strip()
    assert "name its last one in `last`" in said and "\n" not in said


def test_checkpoints_of_before_there_was_a_choice_load(tmp_path: Path) -> None:
    preset = preset_for("lnln", "mini")
    torch.manual_seed(0)
    model = build_model(preset.model).eval()
    path = tmp_path / "model.safetensors"
    save_model(path, lnln.TrainedModel(model, preset, None, {}))
    tensors, header = read_tensors(path)
    old = copy.deepcopy(header)
    del old["preset"]["model"]["answer_size"], old["preset"]["train"]["answer"]
    write_tensors(path, tensors, old)
    loaded = lnln.load_model(path)
    assert loaded.preset == preset and loaded.preset.train.answer == "point"
    batch = lnln.simulate("mini", 1, 20).train.batch
    with torch.no_grad():
        expected = model(model.trim(batch)).sentiment
    assert torch.equal(loaded(batch).sentiment, expected)
