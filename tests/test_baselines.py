"""The compared methods: sizes, invariants of their specification, training."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lnln
from lnln.cli.main import main
from lnln.data.batch import CLS, SEP, UNK, Batch
from lnln.models import METHODS, TITLES, build_model
from lnln.models.baselines.cenet import CENET
from lnln.models.baselines.misa import cmd, difference
from lnln.models.baselines.mmim import Estimator, info_nce, log_determinant
from lnln.models.baselines.self_mm import TASKS, LabelBank
from lnln.models.baselines.tetfn import pool
from lnln.models.baselines.tfr_net import removal_loss
from lnln.models.blocks.encoder import EncoderConfig
from lnln.models.blocks.layers import CrossEncoder, Dropouts, causal_mask
from lnln.models.method import Method, Step
from lnln.training.presets import preset_for
from lnln.training.settings import learning_rate

COMPARED = [name for name in METHODS if name != "lnln"]
every_method = pytest.mark.parametrize("name", COMPARED)
WIDE = EncoderConfig(vocab_size=300, width=768, depth=2, heads=12, ffn_width=64)


SHORT = {"text_length": 20, "audio_length": 30, "vision_length": 40}


def build(name: str, dataset: str = "mosi", **changes: Any) -> Method:
    """A method with new weights, with a small text encoder of BERT's width."""
    if dataset == "mosi":
        changes = SHORT | changes
    config = preset_for(name, dataset).model
    torch.manual_seed(0)
    return build_model(replace(config, **({"encoder": WIDE} | changes)))


def batch_of(
    count: int, lengths: tuple[int, int, int] = (20, 30, 40), seed: int = 0
) -> Batch:
    """Random utterances of MOSI's widths; the first has the longest streams."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(110, 300, (count, lengths[0]), generator=generator)
    sizes = [
        torch.linspace(longest, shortest, count).long()
        for longest, shortest in zip(lengths, (3, 1, 1), strict=True)
    ]
    tokens[:, 0] = CLS
    tokens[torch.arange(count), sizes[0] - 1] = SEP
    tokens = tokens * (torch.arange(lengths[0]) < sizes[0][:, None])
    frames = [
        torch.randn(count, size, width, generator=generator)
        * (torch.arange(size) < own[:, None])[..., None]
        for size, width, own in zip(lengths[1:], (5, 20), sizes[1:], strict=True)
    ]
    return Batch(
        tokens=tokens,
        token_lengths=sizes[0],
        audio=frames[0],
        audio_lengths=sizes[1],
        vision=frames[1],
        vision_lengths=sizes[2],
        labels=torch.linspace(-3, 3, count),
    )


def item_of(model: Method, batch: Batch, rate: float, **rest: Any) -> Step:
    complete = model.trim(batch)
    holes = lnln.split_uniforms(complete, 0)
    erased = lnln.erase(complete, lnln.fixed_rates(len(batch), rate), holes)
    places = {"epoch": 1, "number": 0, "stage": 1} | rest
    index = torch.arange(len(batch))
    return Step(complete, erased, index, forward=model, **places)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("almt", (2_603_649, 3_223_041, 3_232_897)),
        # Without the published program's 3,588 parameters that nothing uses.
        ("misa", (1_134_445, 1_431_517, 21_661_161)),
        ("self_mm", (159_332, 165_668, 381_380)),
        ("mmim", (281_673, 292_425, 373_449)),
        # Without its 10,752 parameters of tables that are never looked up.
        ("cenet", (6_517_249, 6_581_761, 7_067_905)),
        ("tetfn", (1_254_224, 1_257_360, 1_529_968)),
        ("tfr_net", (14_850_620, 18_812_589, 6_668_422)),
        ("p_rmf", (7_828_097, 7_854_849, 7_888_513)),
        ("tf_mamba", (1_813_209, 2_164_081, 1_526_927)),
    ],
)
def test_parameters_beyond_the_encoder_are_as_published(
    name: str, counts: tuple[int, int, int]
) -> None:
    lengths = {"text_length": 50, "audio_length": 375, "vision_length": 500}
    for dataset, count in zip(("mosi", "mosei", "sims"), counts, strict=True):
        own = lengths if dataset == "mosi" else {}
        assert build(name, dataset, **own).beyond_encoder() == count


@every_method
def test_predictions_are_finite_repeatable_and_independent_of_the_batch(
    name: str,
) -> None:
    model, batch = build(name).eval(), batch_of(5)
    with torch.no_grad():
        together = model(model.trim(batch)).sentiment
        again = model(model.trim(batch)).sentiment
        alone = torch.cat(
            [
                model(model.trim(batch.select(torch.tensor([i])))).sentiment
                for i in range(5)
            ]
        )
    assert together.shape == (5,) and together.dtype == torch.float32
    assert bool(together.isfinite().all())
    assert torch.equal(together, again)
    assert torch.allclose(together, alone, atol=1e-4)


@every_method
def test_corruptions_at_once_are_predicted_as_one_after_the_other(name: str) -> None:
    model, batch = build(name).eval(), batch_of(3)
    some = [
        lnln.erase(batch, lnln.fixed_rates(3, rate), lnln.split_uniforms(batch, seed))
        for rate, seed in ((0.0, 0), (0.5, 1), (0.5, 2), (1.0, 0))
    ]
    answers, completeness = model.predict_corruptions(batch, some)
    assert answers.shape == (4, 3) and bool(completeness.isnan().all())
    with torch.no_grad():
        alone = torch.stack([model(part.batch).answer for part in some])
    assert torch.allclose(answers, alone, atol=1e-4)
    assert not torch.allclose(answers[1], answers[2], atol=1e-4)


@every_method
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_everything_or_nothing_erased_gives_finite_gradients(
    name: str, rate: float
) -> None:
    model, batch = build(name).train(), batch_of(6)
    model.begin(batch.labels)
    for epoch in (1, 2):
        item = item_of(model, batch, rate, epoch=epoch, number=2, stage=2)
        model.zero_grad()
        terms = model.losses(item)
        terms["total"].backward()
        model.after_backward(item)
        assert all(bool(term.isfinite()) for term in terms.values())
        for parameter in model.parameters():
            assert parameter.grad is None or bool(parameter.grad.isfinite().all())


@every_method
def test_every_trainable_parameter_is_in_exactly_one_group(name: str) -> None:
    model = build(name)
    train = preset_for(name, "mosi").train
    grouped = [p for group in model.recipe(train).groups for p in group["params"]]
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert len(grouped) == len({id(p) for p in grouped})
    extra = {id(p) for p in grouped} - trainable
    assert trainable <= {id(p) for p in grouped}
    frozen = {id(p) for p in model.parameters() if not p.requires_grad}
    assert extra <= frozen


@every_method
def test_sixteen_samples_can_be_learnt(name: str) -> None:
    # P-RMF's means climb this loss, and alone it drives them to infinity.
    plain = {"reversal": 1.0} if name == "p_rmf" else {}
    model, batch = build(name, **plain).train(), batch_of(16)
    encoder = list(model.text_encoder.parameters())
    inside = {id(p) for p in encoder}
    rest = [p for p in model.parameters() if id(p) not in inside]
    optimizer = torch.optim.Adam(
        [{"params": encoder, "lr": 1e-4}, {"params": rest, "lr": 1e-3}]
    )
    trimmed = model.trim(batch)
    for _ in range(100):
        loss = (model(trimmed).sentiment - batch.labels).abs().mean()
        if loss < 0.5:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError(f"still at {loss.item():.2f}")


@every_method
def test_run_is_trained_resumed_and_evaluated(name: str, tmp_path: Path) -> None:
    data = lnln.simulate("mini", 1, 60)
    preset = preset_for(name, "mini")
    short = replace(preset, train=replace(preset.train, epochs=2))
    record = lnln.train(short, data, tmp_path / "whole", progress=False)
    assert record["method"] == name and len(record["history"]) == 2

    # Broken off after the first epoch: the schedule is that of two epochs.
    class Stop(Exception):
        pass

    def stop(*_: Any, **__: Any) -> None:
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lnln.training.loop.write_json", stop)
        with pytest.raises(Stop):
            lnln.train(short, data, tmp_path / "broken", progress=False)
    lnln.train(short, data, tmp_path / "broken", resume=True, progress=False)
    whole, broken = (
        lnln.load_model(tmp_path / kind / "model.safetensors").model.state_dict()
        for kind in ("whole", "broken")
    )
    for key, value in whole.items():
        assert torch.equal(value, broken[key]), key
    assert main(["evaluate", str(tmp_path / "whole"), "--quiet"]) == 0
    assert TITLES[name] in (tmp_path / "whole/robustness.csv").read_text()


@pytest.mark.parametrize(
    ("name", "steps"),
    [("misa", 40), ("self_mm", 20), ("tetfn", 5), ("almt", 21), ("cenet", 21)]
    + [("p_rmf", 41), ("tf_mamba", 21)],
)
def test_an_epoch_has_as_many_steps_as_published(name: str, steps: int) -> None:
    model = build(name)
    train = preset_for(name, "mosi").train
    batches = math.ceil(1284 / train.batch_size)
    assert batches // model.recipe(train).accumulate == steps


# ALMT


def test_almt_reads_language_only_as_a_query() -> None:
    model = build("almt").eval()
    for layer in model.hyper_modality.layers:
        nn.init.zeros_(layer.to_v_audio.weight)
        nn.init.zeros_(layer.to_v_vision.weight)
    with torch.no_grad():
        answers = model(model.trim(batch_of(4))).sentiment
    assert torch.allclose(answers, answers[:1].expand(4), atol=1e-5)


def test_almt_does_not_depend_on_the_size_of_its_start() -> None:
    model, batch = build("almt").eval(), batch_of(3)
    with torch.no_grad():
        before = model(model.trim(batch)).sentiment
        model.hyper_modality.start.mul_(7)
        assert torch.allclose(before, model(model.trim(batch)).sentiment, atol=1e-5)


def test_almt_follows_the_published_learning_rates() -> None:
    train = preset_for("almt", "mosi").train
    rates = {e: learning_rate((e - 1) * 21, 200 * 21, train) for e in (1, 2, 11, 112)}
    assert rates == pytest.approx({1: 0, 2: 5e-6, 11: 5e-5, 112: 5e-5})


# MISA


def test_cmd_has_the_values_of_the_definition() -> None:
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [0.5]])
    assert cmd(x, y, 5).item() == pytest.approx(0.3125, abs=1e-5)
    assert cmd(x, y, 3).item() == pytest.approx(0.250002, abs=1e-5)
    assert cmd(x, x, 5).item() == pytest.approx(0, abs=1e-5)
    z = torch.rand(6, 3)
    assert torch.allclose(cmd(z, x.expand(2, 3), 5), cmd(x.expand(2, 3), z, 5))


def test_difference_has_the_values_of_the_definition() -> None:
    x = torch.tensor([[1.0, 0], [-1, 0]])
    assert difference(x, x).item() == pytest.approx(1, abs=1e-5)
    assert difference(x, torch.tensor([[0.0, 1], [0, 1]])).item() == 0
    a = torch.tensor([[1.0, 2], [3, 5], [0, 1]])
    b = torch.tensor([[2.0, 0], [1, 1], [4, -1]])
    assert difference(a, b).item() == pytest.approx(0.43227, abs=1e-4)


def test_misa_reads_frames_up_to_the_length_of_the_text() -> None:
    model, batch = build("misa").eval(), batch_of(2)
    changed = replace(batch, audio=batch.audio.clone())
    changed.audio[0, 20:] += 5
    with torch.no_grad():
        before, after = (model(model.trim(b)).sentiment for b in (batch, changed))
        assert torch.equal(before, after)
        changed.audio[0, :20] += 5
        assert not torch.equal(before, model(model.trim(changed)).sentiment)


# Self-MM, and TETFN's labels


def bank(count: int = 2) -> LabelBank:
    return LabelBank(torch.ones(count), dict.fromkeys(TASKS, 1), 3.0)


def test_labels_move_as_in_the_hand_example() -> None:
    b = bank()
    for s, positive, negative in (("f", 1.0, 3.0), ("l", 1.0, 2.0)):
        b.state[f"positive.{s}"] = torch.tensor([positive])
        b.state[f"negative.{s}"] = torch.tensor([-negative])
    for s in ("a", "v"):
        b.state[f"positive.{s}"] = torch.tensor([1.0])
        b.state[f"negative.{s}"] = torch.tensor([-3.0])
    features = {s: torch.zeros(2, 1) for s in TASKS}
    b._move_labels(features, torch.arange(2), 2)
    assert torch.allclose(b.labels("l", torch.arange(2)), torch.tensor(0.5))
    # Equal distances: the label stays.
    assert torch.allclose(b.labels("a", torch.arange(2)), torch.tensor(1.0))
    b._move_labels(features, torch.arange(2), 3)
    assert torch.allclose(b.labels("l", torch.arange(2)), torch.tensor(0.375))
    assert torch.equal(b.labels("f", torch.arange(2)), torch.ones(2))
    assert math.tanh(0.5) * 0.5 == pytest.approx(0.2311, abs=1e-4)


def test_centres_are_means_over_the_bank_and_an_empty_class_moves_nothing() -> None:
    y = torch.tensor([1.0, 2.0, 0.0])
    b = LabelBank(y, dict.fromkeys(TASKS, 2), 3.0)
    features = {s: torch.rand(3, 2) for s in TASKS}
    for epoch in (1, 2, 3):
        b.update(features, torch.arange(3), epoch)
        for s in TASKS:
            assert torch.allclose(b.state[f"positive.{s}"], features[s][:2].mean(dim=0))
            assert torch.equal(b.labels(s, torch.arange(3)), y)


@pytest.mark.parametrize("name", ["self_mm", "tetfn"])
def test_first_epoch_teaches_the_fused_head_only(name: str) -> None:
    model, batch = build(name).train(), batch_of(6)
    model.begin(batch.labels)
    model.losses(item_of(model, batch, 0.3))["total"].backward()
    for s in "lav":
        for parameter in model.heads[s].parameters():
            assert parameter.grad is not None and not parameter.grad.any()
    assert model.heads["f"].answer.weight.grad.any()


# MMIM


def test_mutual_information_terms_have_the_values_of_the_definition() -> None:
    estimator = Estimator(8, 4)
    for part in (estimator.mean, estimator.log_variance):
        for parameter in part.parameters():
            nn.init.zeros_(parameter)
    score = estimator.score(torch.randn(3, 8), torch.ones(3, 4))
    assert score.item() == pytest.approx(-2)
    eye = torch.eye(2)
    assert info_nce(eye, eye).item() == pytest.approx(math.log(math.e + 1) - 1)
    assert info_nce(eye[:1], eye[1:]).item() == pytest.approx(0)
    rows = torch.randn(50, 4)
    difference_of_scales = log_determinant(3 * rows) - log_determinant(rows)
    assert difference_of_scales.item() == pytest.approx(8 * math.log(3), abs=1e-3)
    assert log_determinant(rows[:4]).item() == 0


def test_stages_train_disjoint_parameters(tmp_path: Path) -> None:
    model = build("mmim")
    names = {n for n, _ in model.named_parameters()}
    first = {n for n in names if model.stage_of(n) == 1}
    assert first == {n for n in names if n.startswith("estimators")}
    batch = batch_of(8)
    stage1 = model.losses(item_of(model, batch, 0.3, stage=1))
    assert torch.equal(stage1["total"], stage1["score"])
    frozen = model.estimators["a"].entropy[0].weight
    assert not frozen.requires_grad


# CENET


def test_cenet_without_its_shift_is_its_encoder() -> None:
    model, batch = build("cenet").eval(), batch_of(4)
    nn.init.zeros_(model.enhance.shift.weight)
    nn.init.zeros_(model.enhance.shift.bias)
    with torch.no_grad():
        trimmed = model.trim(batch)
        text = model.text_encoder(trimmed.tokens, trimmed.token_lengths)
        expected = model.head(text[:, 0]).squeeze(-1)
        assert torch.allclose(model(trimmed).sentiment, expected, atol=1e-5)


def test_cenet_shifts_every_word_once_between_the_first_two_layers() -> None:
    model, batch = build("cenet").eval(), batch_of(3)
    assert isinstance(model, CENET)
    seen: dict[str, Tensor] = {}
    layers = model.text_encoder.bert.encoder.layer
    layers[1].register_forward_pre_hook(
        lambda _, inputs: seen.update(after=inputs[0].detach())
    )
    model.enhance.register_forward_hook(
        lambda _, inputs, output: seen.update(before=inputs[0], shift=output)
    )
    with torch.no_grad():
        model(model.trim(batch))
    assert torch.allclose(seen["after"], seen["before"] + seen["shift"], atol=1e-6)


def test_cenet_does_not_see_the_order_of_frames() -> None:
    model, batch = build("cenet").eval(), batch_of(2)
    trimmed = model.trim(batch)
    shuffled = replace(trimmed, audio=trimmed.audio.flip(1))
    with torch.no_grad():
        answers = (model(b).sentiment for b in (trimmed, shuffled))
        assert torch.allclose(*answers, atol=1e-5)


def test_cenet_leaves_the_embeddings_alone() -> None:
    model, batch = build("cenet").train(), batch_of(4)
    model.losses(item_of(model, batch, 0.3))["total"].backward()
    tables = model.text_encoder.bert.embeddings
    assert all(p.grad is None for p in tables.parameters())


# TETFN and TFR-Net


def test_cross_encoder_has_the_published_size_and_looks_back_only() -> None:
    sizes = {(50, 2): 61_400, (50, 1): 30_750, (100, 2): 242_800}
    for (width, layers), count in sizes.items():
        encoder = CrossEncoder(width, 5, layers, Dropouts())
        assert sum(p.numel() for p in encoder.parameters()) == count
    assert (~causal_mask(3, 5)).sum(dim=1).tolist() == [3, 4, 5]
    assert not causal_mask(5, 3).any()
    encoder = CrossEncoder(10, 5, 2, Dropouts(), positions=True).eval()
    x, source = torch.randn(2, 2, 6, 10)
    with torch.no_grad():
        before = encoder(x, source)
        # A constant would not do: LayerNorm takes it away.
        source[:, 4:] += torch.randn(2, 2, 10)
        after = encoder(x, source)
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-6)
    assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-3)


def test_pooling_has_the_values_of_the_definition() -> None:
    seven, six = (torch.arange(n, dtype=torch.float)[None, :, None] for n in (7, 6))
    assert pool(seven, 3).flatten().tolist() == [1, 4, 6]
    assert pool(six, 3).flatten().tolist() == [0.5, 2.5, 4.5]
    assert torch.equal(pool(six, 6), six)
    assert pool(six[:, :2], 5).shape == (1, 5, 1)


def test_unimodal_heads_of_tetfn_see_their_own_modality_only() -> None:
    model, batch = build("tetfn").eval(), batch_of(3)
    other = replace(batch, vision=batch.vision + 1, tokens=batch.tokens.clone())
    other.tokens[:, 1] = UNK
    with torch.no_grad():
        one, two = (model(model.trim(b)).extras["answers"] for b in (batch, other))
    assert torch.allclose(one["a"], two["a"], atol=1e-6)
    assert not torch.allclose(one["l"], two["l"], atol=1e-6)
    assert not torch.allclose(one["f"], two["f"], atol=1e-6)


def test_reconstruction_counts_removed_positions_only() -> None:
    estimate, target = torch.ones(1, 2, 2), torch.zeros(1, 2, 2)
    removed = torch.tensor([[True, False]])
    loss = removal_loss(estimate, target, removed, 0.0)
    assert loss.item() == pytest.approx(0.499975, abs=1e-6)
    with_moments = removal_loss(estimate, target, removed, 5.0)
    assert with_moments.item() == pytest.approx(3.1515, abs=1e-3)
    estimate[0, 1] = 9.0
    assert removal_loss(estimate, target, removed, 5.0) == with_moments


def test_tfr_net_reconstructs_from_the_second_epoch_on() -> None:
    model, batch = build("tfr_net").train(), batch_of(4)
    model.losses(item_of(model, batch, 0.5))["total"].backward()
    assert all(p.grad is None for p in model.generate.parameters())
    model.losses(item_of(model, batch, 0.5, epoch=2))["total"].backward()
    assert all(p.grad is not None for p in model.generate.parameters())


def test_tfr_net_mixes_samples_in_the_reconstruction_only() -> None:
    model, batch = build("tfr_net").eval(), batch_of(3)
    other = replace(batch, audio=batch.audio.clone())
    other.audio[0] += 1
    with torch.no_grad():
        one, two = (model(model.trim(b)) for b in (batch, other))
        a, b = (model.reconstruct(x.extras["features"])["a"] for x in (one, two))
    assert torch.allclose(one.sentiment[1:], two.sentiment[1:], atol=1e-5)
    assert not torch.allclose(a[2], b[2], atol=1e-6)
