"""TF-Mamba: the worked examples and invariants of its specification."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_baselines import batch_of, build, item_of
from torch import Tensor, nn
from torch.nn.functional import pad, silu, softplus

from lnln.data.batch import UNK, Batch
from lnln.models.method import Method, Step
from lnln.models.since2024.scan import (
    BiMamba,
    Direction,
    fast_selective_scan,
    selective_scan,
)
from lnln.models.since2024.tf_mamba import Alignment, enrich, text_loss
from lnln.training.presets import preset_for
from lnln.training.settings import learning_rate

both_forms = pytest.mark.parametrize("scan", [selective_scan, fast_selective_scan])
Scan = Any


def rows(*values: list[float]) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


# The scan

U = rows([1, -1], [0.5, 2], [-1, 0])
STEP = softplus(rows([0, 1], [-1, 0.5], [2, -0.5]) + rows([0.5, -0.5]))
A = torch.tensor([[-1.0, -2], [-0.5, -3]], dtype=torch.float64)
B = rows([1, 0.5], [-1, 1], [0.5, 2])
C = rows([1, 1], [0.5, -1], [2, 0])
SKIP = rows([1, 0.5])
GATE = rows([1, -1], [0, 2], [-2, 0.5])


@both_forms
def test_scan_has_the_values_of_the_worked_example(scan: Scan) -> None:
    y = scan(U, STEP, A, B, C) + SKIP * U
    ahead = y * silu(GATE)
    turned = [x.flip(1) for x in (U, STEP, B, C)]
    y_back = scan(turned[0], turned[1], A, *turned[2:]) + SKIP * turned[0]
    back = (y_back * silu(GATE.flip(1))).flip(1)
    wanted = {
        "y": (y, rows([2.4611, -1.9611], [0.2589, -1.3629], [-3.5229, -3.5485])),
        "ahead": (ahead, rows([1.7992, 0.5274], [0, -2.4010], [0.8399, -1.1044])),
        "back": (back, rows([1.3287, 0.7364], [0, -1.9015], [0.8532, 0])),
        "mean": (
            (ahead + back) / 2,
            rows([1.5640, 0.6319], [0, -2.1513], [0.8465, -0.5522]),
        ),
    }
    for name, (found, value) in wanted.items():
        torch.testing.assert_close(found, value, rtol=0, atol=6e-5, msg=name)


@both_forms
def test_one_state_sums_a_geometric_series(scan: Scan) -> None:
    one = torch.ones(1, 40, 1)
    y = scan(one, math.log(2) * one, -torch.ones(1, 1), one, one).flatten()
    assert y[:4].tolist() == pytest.approx([0.6931, 1.0397, 1.2130, 1.2997], abs=1e-4)
    assert y[-1].item() == pytest.approx(2 * math.log(2))


def random_scan(*, length: int = 9) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    u, b, c = draw(3, length, 5), draw(3, length, 4), draw(3, length, 4)
    given = [u, softplus(draw(3, length, 5)), -draw(5, 4).exp(), b, c]
    return [x.requires_grad_() for x in given]


@pytest.mark.parametrize("length", [1, 2, 9])
def test_fast_scan_is_the_scan_and_so_is_its_gradient(length: int) -> None:
    given = random_scan(length=length)
    one, two = selective_scan(*given), fast_selective_scan(*given)
    torch.testing.assert_close(one, two)
    weight = torch.randn_like(one)
    gradients = [torch.autograd.grad((y * weight).sum(), given) for y in (one, two)]
    for name, first, second in zip("u step a b c".split(), *gradients, strict=True):
        torch.testing.assert_close(first, second, msg=name)


@both_forms
def test_states_that_forget_at_once_overflow_nothing(scan: Scan) -> None:
    u, b, c = torch.randn(2, 50, 3), torch.randn(2, 50, 16), torch.randn(2, 50, 16)
    a = -torch.arange(1.0, 17).expand(3, 16)
    step = torch.full((2, 50, 3), 0.7).requires_grad_()
    y = scan(u, step, a, b, c)
    (gradient,) = torch.autograd.grad(y.sum(), step)
    # A cumulative sum of 50 * 0.7 * 16 = 560 is far beyond exp in float32.
    assert bool(y.isfinite().all()) and bool(gradient.isfinite().all())


@both_forms
def test_scan_does_not_look_ahead_and_steps_of_no_size_freeze_it(scan: Scan) -> None:
    u, step, a, b, c = (x.detach() for x in random_scan())
    before = scan(u, step, a, b, c)
    later = [x.clone() for x in (u, step, b, c)]
    for x in later:
        x[:, 5:] += 1
    after = scan(later[0], later[1], a, *later[2:])
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])
    frozen = step.clone()
    frozen[:, 5:] = 0
    same = c[:, :1].expand_as(c)
    y = scan(u, frozen, a, b, same)
    torch.testing.assert_close(y[:, 5:], y[:, 4:5].expand_as(y[:, 5:]))


# A direction and a block


def test_a_direction_without_states_is_its_skip_and_no_gate_lets_nothing_through() -> (
    None
):
    direction = Direction(6, 4, 2, small_steps=True)
    x, gate = torch.randn(2, 2, 7, 6)
    log_a = torch.zeros(6, 4)
    assert not direction(x, torch.zeros_like(gate), log_a).any()
    nn.init.zeros_(direction.to_scan.weight)
    weight, bias = direction.conv.weight[:, 0], direction.conv.bias
    assert bias is not None
    earlier = pad(x, (0, 0, 3, 0))  # zeros before the start
    u = silu(bias + sum(weight[:, k] * earlier[:, k : k + 7] for k in range(4)))
    expected = direction.skip * u * silu(gate)
    torch.testing.assert_close(direction(x, gate, log_a), expected)


def block(streams: int) -> BiMamba:
    torch.manual_seed(1)
    return BiMamba(streams, 32, 2, 4, 2, 1e-6)


def test_directions_begin_as_published() -> None:
    made = BiMamba(1, 128, 4, 12, 8, 1e-6)
    (stream,) = made.streams
    ahead, back = stream.ahead.to_step, stream.back.to_step
    steps = softplus(ahead.bias)
    assert 1e-3 <= steps.min() < 2e-3 and 0.05 < steps.max() <= 0.1
    # Log-uniform: as many below the geometric mean as above it.
    assert (steps < 0.01).float().mean().item() == pytest.approx(0.5, abs=0.1)
    steps_back = softplus(back.bias)
    assert 0.53 < steps_back.min() < 0.56 and 0.85 < steps_back.max() < 0.886
    for linear in (ahead, back):
        assert 0.34 < linear.weight.abs().max() <= 8**-0.5
    expected = -torch.arange(1.0, 13).expand(512, 12)
    torch.testing.assert_close(-made.log_ahead.exp(), expected)
    assert torch.equal(made.log_ahead, made.log_back)
    assert (stream.ahead.skip == 1).all() and (stream.back.skip == 1).all()


@pytest.mark.parametrize(("expansion", "states"), [(4, 12), (4, 16), (2, 16)])
@pytest.mark.parametrize("streams", [1, 2])
def test_a_block_has_the_published_size(
    streams: int, expansion: int, states: int
) -> None:
    sizes = {(4, 12): 257_280, (4, 16): 269_568, (2, 16): 134_912}
    pairs = {(4, 12): 502_272, (4, 16): 522_752, (2, 16): 261_632}
    made = BiMamba(streams, 128, expansion, states, 8, 1e-6)
    wanted = (sizes if streams == 1 else pairs)[expansion, states]
    assert sum(p.numel() for p in made.parameters()) == wanted


def test_a_block_reads_both_ways_alike() -> None:
    made = block(1)
    (stream,) = made.streams
    stream.back.load_state_dict(stream.ahead.state_dict())
    x = torch.randn(2, 9, 32)
    with torch.no_grad():
        (y,), (turned,) = made((x, None)), made((x.flip(1), None))
        assert torch.equal(turned.flip(1), y)
        stream.back.to_step.bias += 1
        (other,) = made((x.flip(1), None))
        assert not torch.allclose(other.flip(1), y)


def test_streams_share_how_they_forget_and_never_meet() -> None:
    made = block(2)
    frames, text, other = torch.randn(3, 2, 9, 32)
    one, two = (made((frames, None), (t, None)) for t in (text, other))
    assert torch.equal(one[0], two[0]) and not torch.allclose(one[1], two[1])
    gradients = [
        torch.autograd.grad(y.square().sum(), made.log_ahead, retain_graph=True)[0]
        for y in one
    ]
    assert all(bool(gradient.any()) for gradient in gradients)
    whole = sum(y.square().sum() for y in one)
    assert isinstance(whole, Tensor)
    torch.testing.assert_close(
        torch.autograd.grad(whole, made.log_ahead)[0], gradients[0] + gradients[1]
    )


def test_a_masked_block_is_the_block_on_the_real_steps() -> None:
    made = block(1)
    x = torch.randn(2, 9, 32)
    mask = torch.arange(9).expand(2, 9) < 6
    with torch.no_grad():
        (masked,), (short,) = made((x, mask)), made((x[:, :6], None))
        (unmasked,) = made((x, None))
    torch.testing.assert_close(masked[:, :6], short, rtol=0, atol=1e-6)
    assert not torch.allclose(unmasked[:, :6], short, atol=1e-4)


# Alignment, enrichment, reconstruction


def test_alignment_is_nearly_uniform_whatever_its_weights() -> None:
    alignment = Alignment(5, 50)
    for parameter in alignment.parameters():
        nn.init.normal_(parameter, std=5.0)
    p = alignment.weights(3 * torch.randn(4, 30, 5))
    assert p.shape == (4, 30, 51)
    torch.testing.assert_close(p.sum(dim=-1), torch.ones(4, 30))
    e = math.e
    low, high = 1 / e / (1 / e + 50 * e), e / (e + 50 / e)
    assert (low, high) == pytest.approx((0.0027, 0.129), rel=0.01)
    assert p.min() >= low - 1e-6 and p.max() <= high + 1e-6
    ones = torch.ones(1, 30, 5)
    expected = alignment.weights(ones)[0, :, 1:].sum(dim=0)
    torch.testing.assert_close(alignment(ones)[0], expected[:, None].expand(50, 5))


@pytest.mark.parametrize(
    ("x", "wanted"),
    [
        ((1.0, 0.0), (1.9999994, 0.0)),
        ((0.8, 0.6), (1.7457, 0.6)),
        # Two equal similarities are not above uniform.
        ((0.5**0.5, 0.5**0.5), (0.5**0.5, 0.5**0.5)),
    ],
)
def test_enrichment_has_the_values_of_the_definition(
    x: tuple[float, float], wanted: tuple[float, float]
) -> None:
    scale = torch.tensor(math.log(1 / 0.07))
    words = torch.tensor([[[1.0, 0], [0, 1], [9, 9]]])
    seen = torch.tensor([[True, True, False]])
    found = enrich(torch.tensor([[x]]), words, scale, seen)
    assert found.flatten().tolist() == pytest.approx(wanted, abs=1e-4)


def test_reconstruction_counts_removed_words_only() -> None:
    estimate, target = torch.ones(1, 2, 768), torch.zeros(1, 2, 768)
    removed = torch.tensor([[True, False]])
    assert text_loss(estimate, target, removed).item() == pytest.approx(0.5)
    assert text_loss(2 * estimate, target, removed).item() == pytest.approx(1.5)
    estimate[0, 1] = 9
    estimate.requires_grad_()
    assert text_loss(estimate, target, removed).item() == pytest.approx(0.5)
    nothing = text_loss(estimate, target, torch.zeros_like(removed))
    nothing.backward()
    assert nothing == 0 and estimate.grad is not None and not estimate.grad.any()


# The network


def answers(model: Method, batch: Batch) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(model.trim(batch)).sentiment
        return found


def test_shapes_are_those_of_the_specification() -> None:
    model, batch = build("tf_mamba").eval(), batch_of(3)
    with torch.no_grad():
        extras = model(model.trim(batch)).extras
    assert extras["text"].shape == extras["steps"].shape == (3, 20, 128)
    assert extras["aligned"]["a"].shape == (3, 20, 5)
    assert extras["aligned"]["v"].shape == (3, 20, 20)
    for name in ("enriched", "read"):
        assert all(x.shape == (3, 20, 128) for x in extras[name].values())


@pytest.mark.parametrize("padding", [False, True])
def test_what_stands_behind_a_text_matters_only_as_published(padding: bool) -> None:
    model = build("tf_mamba", padding=padding).eval()
    batch = batch_of(4)  # the first has no padding, the others do
    before = answers(model, batch)

    def scramble(_: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> Tensor:
        behind = torch.arange(output.shape[1]) >= inputs[1][:, None]
        # No constant, which LayerNorm would take away.
        noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
        return torch.where(behind[..., None], noise, output)

    model.text_encoder.register_forward_hook(scramble)
    after = answers(model, batch)
    assert torch.equal(before[:1], after[:1])
    assert torch.allclose(before[1:], after[1:], atol=1e-6) is not padding


@pytest.mark.parametrize("padding", [False, True])
def test_empty_frames_change_nothing_at_the_end_but_in_front(padding: bool) -> None:
    model = build("tf_mamba", padding=padding).eval()
    batch = batch_of(2)
    before = answers(model, batch)

    def longer(x: Tensor, front: int, end: int) -> Tensor:
        return pad(x, (0, 0, front, end))

    for front, end in ((0, 7), (7, 0)):
        other = replace(
            batch,
            audio=longer(batch.audio, front, end),
            audio_lengths=batch.audio_lengths + 7,
            vision=longer(batch.vision, front, end),
            vision_lengths=batch.vision_lengths + 7,
        )
        same = torch.allclose(before, answers(model, other), atol=1e-5)
        assert same is (front == 0)


def still(item: Step, **changes: Tensor) -> Step:
    return replace(item, complete=replace(item.complete, **changes))


def test_only_the_complete_text_is_looked_at_and_only_by_the_reconstruction() -> None:
    model, batch = build("tf_mamba").eval(), batch_of(4)
    item = item_of(model, batch, 0.5)
    with torch.no_grad():
        before = model.losses(item)
        frames = {m: getattr(item.complete, m) + 1 for m in ("audio", "vision")}
        unchanged = model.losses(still(item, **frames))
        words = item.complete.tokens.clone()
        words[:, 1] = 111
        text = model.losses(still(item, tokens=words))
    assert all(torch.equal(before[name], unchanged[name]) for name in before)
    assert torch.equal(before["sentiment"], text["sentiment"])
    assert not torch.equal(before["reconstruction"], text["reconstruction"])
    total = before["sentiment"] + 0.7 * before["reconstruction"]
    torch.testing.assert_close(before["total"], total)


def test_the_encoder_learns_from_the_features_that_are_to_be_recovered() -> None:
    model, batch = build("tf_mamba").eval(), batch_of(4)
    item = item_of(model, batch, 0.5)
    spared = 110  # a word of the complete text alone
    words = item.complete.tokens.clone()
    words[:, 1] = spared
    seen = item.erased.batch.tokens.clone()
    seen[:, 1] = UNK
    item = still(item, tokens=words)
    item = replace(
        item, erased=replace(item.erased, batch=replace(item.complete, tokens=seen))
    )
    table = model.text_encoder.bert.embeddings.word_embeddings.weight
    terms = model.losses(item)
    (gradient,) = torch.autograd.grad(terms["reconstruction"], table, retain_graph=True)
    assert gradient[spared].any()
    (gradient,) = torch.autograd.grad(terms["sentiment"], table)
    assert not gradient[spared].any()


def test_without_weight_nothing_learns_to_reconstruct() -> None:
    for weight in (0.0, 0.7):
        model = build("tf_mamba", reconstruction=weight).train()
        model.losses(item_of(model, batch_of(4), 0.5))["total"].backward()
        grads = [p.grad for p in model.reconstruct.parameters()]
        assert any(g is not None and bool(g.any()) for g in grads) is (weight > 0)


def test_training_follows_the_published_program() -> None:
    preset = preset_for("tf_mamba", "mosi")
    train = preset.train
    rates = {
        e: learning_rate((e - 1) * 21, 200 * 21, train) for e in (1, 2, 21, 22, 112)
    }
    wanted = {1: 0, 2: 5e-6, 21: 1e-4, 22: 1e-4, 112: 5e-5}
    assert rates == pytest.approx(wanted)
    recipe = build("tf_mamba").recipe(train)
    assert [group["weight_decay"] for group in recipe.groups] == [1e-4]
    assert not (recipe.coupled or recipe.clip_norm or recipe.clip_value)
    assert train.patience >= train.epochs == 200 and train.batch_size == 64


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mosi", (4, 12, 1, 0.7, 0.1)),
        ("mosei", (4, 16, 2, 0.3, 0.2)),
        ("sims", (2, 16, 2, 1.0, 0.2)),
    ],
)
def test_settings_are_the_published_ones(name: str, wanted: tuple[float, ...]) -> None:
    model: Any = preset_for("tf_mamba", name).model
    found = (model.expansion, model.states, model.query_blocks)
    assert (*found, model.reconstruction, model.dropout) == wanted
    assert (model.width, model.heads, model.head_width) == (128, 8, 64)
