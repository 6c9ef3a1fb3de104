"""P-RMF: the worked examples and invariants of its specification."""

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import pytest
import torch
from test_baselines import batch_of, build, item_of
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from lnln.data.batch import UNK, Batch
from lnln.models.blocks.encoder import EncoderConfig
from lnln.models.since2024.p_rmf import (
    PRMF,
    certainty,
    divergence_loss,
    feature_loss,
    gaussian_divergence,
)
from lnln.training.presets import preset_for
from lnln.training.settings import learning_rate

NARROW = EncoderConfig(vocab_size=300, width=32, depth=1, heads=2, ffn_width=32)
SMALL = {"width": 32, "heads": 2, "head_width": 16, "ffn_width": 32}


def small(**changes: object) -> PRMF:
    """A narrow P-RMF with new weights, without dropout."""
    changes = {
        "encoder": NARROW,
        "injection_dropout": 0.0,
        "head_dropout": 0.0,
    } | changes
    return cast(PRMF, build("p_rmf", **SMALL, **changes).eval())


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def gradients(module: nn.Module) -> list[Tensor]:
    return [p.grad for p in module.parameters() if p.grad is not None]


def any_gradient(module: nn.Module) -> bool:
    return any(bool(grad.any()) for grad in gradients(module))


# Sizes


@pytest.mark.parametrize(
    ("dataset", "embeddings"),
    [
        ("mosi", {"l": 699_520, "a": 643_456, "v": 661_376}),
        ("mosei", {"l": 699_520, "a": 668_288, "v": 663_296}),
        ("sims", {"l": 706_048, "a": 658_176, "v": 700_544}),
    ],
)
def test_parts_have_the_published_sizes(
    dataset: str, embeddings: dict[str, int]
) -> None:
    lengths = {"text_length": 50, "audio_length": 375, "vision_length": 500}
    model = cast(PRMF, build("p_rmf", dataset, **lengths if dataset == "mosi" else {}))
    assert {m: size(part) for m, part in model.embedding.items()} == embeddings
    assert {size(part) for part in model.gaussian.values()} == {643_200}
    assert {size(part) for part in model.decoder.values()} == {626_688}
    assert {size(part) for part in model.injection.attention.values()} == {66_560}
    assert size(model.injection) == 216_448 and size(model.head) == 16_641
    never = [p.numel() for p in model.parameters() if not p.requires_grad]
    assert sum(never) == size(model.reconstructor) == 1_780_992
    tokens = {part.tokens.shape[1] for part in model.embedding.values()}
    assert tokens == {39 if dataset == "sims" else 8}
    assert size(build("p_rmf", injections=7).injection) == 216_448


def test_positions_start_wide_and_tokens_at_zero() -> None:
    model = small()
    starts = dict(model.named_parameters())
    assert not starts["embedding.a.tokens"].any()
    for part in ("embedding.v", "gaussian.l", "decoder.a", "reconstructor.v"):
        name = f"{part}.positions" if "rec" in part else f"{part}.encoder.positions"
        assert starts[name].std().item() == pytest.approx(1, abs=0.15)


def test_parts_of_an_answer_have_their_shapes() -> None:
    for name, prefix in (("mosi", 8), ("sims", 39)):
        model, batch = small(prefix=prefix), model_batch(3)
        parts = model(batch, batch).extras
        for kind in ("embedded", "targets", "means", "log_variances", "weights"):
            assert {x.shape for x in parts[kind].values()} == {(3, 8, 32)}, (name, kind)
        for kind in ("decoded", "rebuilt"):
            assert {x.shape for x in parts[kind].values()} == {(3, 8, 32)}, (name, kind)
        assert parts["proxy"].shape == parts["injected"].shape == (3, 8, 32)
        torch.testing.assert_close(sum(parts["weights"].values()), torch.ones(3, 8, 32))


def model_batch(count: int) -> Batch:
    return batch_of(count).trim()


# The worked example

MEANS = {m: torch.tensor([x]) for m, x in (("l", 1.0), ("a", 2.0), ("v", -1.0))}
SIGMAS = {m: torch.tensor([x]) for m, x in (("l", 1.0), ("a", 2.0), ("v", 0.5))}
LOGS = {m: 2 * x.log() for m, x in SIGMAS.items()}


def test_weights_and_divergences_have_the_values_of_the_worked_example() -> None:
    weights = certainty(LOGS)
    wanted = {"l": 0.2312, "v": 0.6285, "a": 0.1402}
    for m, weight in wanted.items():
        assert weights[m].item() == pytest.approx(weight, abs=1e-4)
    proxy = sum((weights[m] * MEANS[m]).item() for m in MEANS)
    assert proxy == pytest.approx(-0.1168, abs=1e-4)
    q = {m: (MEANS[m], LOGS[m]) for m in MEANS}
    priors = {"l": 0.5, "v": 0.8181, "a": 2.8069}
    for m, value in priors.items():
        assert gaussian_divergence(*q[m]).item() == pytest.approx(value, abs=1e-4)
    for (m, n), value in {"vl": 2.3181, "al": 1.3069, "av": 24.1137}.items():
        found = gaussian_divergence(*q[m], *q[n]).item()
        assert found == pytest.approx(value, abs=1e-3), (m, n)
    parts = {"means": MEANS, "log_variances": LOGS, "decoded": MEANS, "targets": MEANS}
    assert divergence_loss(parts).item() == pytest.approx(10.6212, abs=1e-3)


def test_divergence_is_that_of_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    m1, l1, m2, l2 = torch.randn(4, 2, 3, 5, generator=generator)
    normal = torch.distributions.Normal
    q, p = normal(m1, (l1 / 2).exp()), normal(m2, (l2 / 2).exp())
    expected = torch.distributions.kl_divergence(q, p).mean()
    torch.testing.assert_close(gaussian_divergence(m1, l1, m2, l2), expected)


def test_equal_certainty_is_shared_and_complete_certainty_takes_all() -> None:
    for value in certainty(dict.fromkeys("lav", torch.tensor(0.7))).values():
        assert value.item() == pytest.approx(1 / 3)
    # exp(1 / sigma) would overflow below -8.97.
    for low in (-8.98, -10.0, -20.0):
        logs = {m: torch.zeros(1, requires_grad=True) for m in "la"}
        logs["v"] = torch.full((1,), low, requires_grad=True)
        weights = certainty(logs)
        assert weights["v"].item() == 1 and weights["l"].item() < 1e-30
        weights["v"].sum().backward()
        assert all(bool(x.grad.isfinite().all()) for x in logs.values())
        assert not logs["v"].grad.any()


# Injection


def zero(modules: Iterable[nn.Linear]) -> None:
    for module in modules:
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)


def test_without_its_maps_the_injection_leaves_the_proxy() -> None:
    model, batch = small(), model_batch(3)
    zero(part.to_out for part in model.injection.attention.values())
    changed = model(batch).extras
    assert not torch.equal(changed["injected"], changed["proxy"])
    zero([model.injection.mix])
    parts = model(batch).extras
    assert torch.equal(parts["injected"], parts["proxy"])


def test_attention_to_equal_tokens_is_the_same_for_every_query() -> None:
    generator = torch.Generator().manual_seed(0)
    attention = small().injection.attention["a"]
    queries = torch.randn(2, 8, 32, generator=generator)
    tokens = torch.randn(2, 8, 32, generator=generator)
    found = attention(queries, tokens[:, :1].expand(-1, 8, -1))
    torch.testing.assert_close(found, found[:, :1].expand(-1, 8, -1))
    q = attention.to_q(attention.norm_proxy(queries))
    y = attention.norm_modality(tokens)
    scores = (q @ attention.to_k(y).mT / 32**0.5).softmax(dim=-1)
    expected = attention.to_out(scores @ attention.to_v(y))
    torch.testing.assert_close(attention(queries, tokens), expected)


# Gradients


def test_the_means_and_they_alone_get_the_reversed_gradient() -> None:
    batch, found = model_batch(4), {}
    for factor in (-1.0, 1.0):
        model = small(reversal=factor)
        mse_loss(model(batch).answer, batch.labels).backward()
        found[factor] = model
    one, other = found[-1.0], found[1.0]
    for m in "lav":
        pairs = zip(
            gradients(one.gaussian[m].mean),
            gradients(other.gaussian[m].mean),
            strict=True,
        )
        for a, b in pairs:
            torch.testing.assert_close(a, -b, rtol=1e-4, atol=1e-8)
        for kind in ("gaussian", "embedding"):
            part, twin = (getattr(x, kind)[m] for x in (one, other))
            if kind == "gaussian":
                part, twin = part.log_variance, twin.log_variance
            a, b = (
                torch.cat([g.flatten() for g in gradients(x)]) for x in (part, twin)
            )
            assert not torch.allclose(a, b, rtol=1e-2, atol=1e-7)
            assert not torch.allclose(a, -b, rtol=1e-2, atol=1e-7)
    for kind in ("injection", "head"):
        parts = (gradients(getattr(x, kind)) for x in (one, other))
        for a, b in zip(*parts, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)
    assert not gradients(one.decoder) and not gradients(one.reconstructor)


def test_each_loss_teaches_what_it_should() -> None:
    model, batch = small(), model_batch(4)

    def after(loss: Tensor) -> PRMF:
        model.zero_grad()
        loss.backward()
        return model

    step = item_of(model, batch, 0.5)
    parts = model(step.erased.batch, step.complete).extras
    assert any_gradient(after(divergence_loss(parts)).decoder)
    parts = model(step.erased.batch, step.complete).extras
    after(feature_loss(parts))
    assert not any_gradient(model.decoder) and any_gradient(model.text_encoder)
    # Through the targets as well, which are not detached.
    parts = model(step.erased.batch, step.complete).extras
    parts["rebuilt"] = {m: x.detach() for m, x in parts["rebuilt"].items()}
    assert any_gradient(after(feature_loss(parts)).text_encoder)
    terms = model.losses(step)
    total = terms["sentiment"] + 0.1 * terms["reconstruction"]
    assert terms["total"].item() == pytest.approx(
        (total + 0.5 * terms["divergence"]).item(), rel=1e-6
    )


def test_training_has_two_rates_and_leaves_the_reconstructors() -> None:
    model, train = small().train(), preset_for("p_rmf", "mosi").train
    recipe = model.recipe(train)
    slow, fast = recipe.groups
    assert (slow["lr"], fast["lr"]) == (pytest.approx(5e-6), 1e-4)
    assert {group["weight_decay"] for group in recipe.groups} == {1e-4}
    assert recipe.clip_norm == recipe.clip_value == 0 and not recipe.coupled
    parts = [*model.text_encoder.parameters(), *model.injection.parameters()]
    assert {id(p) for p in slow["params"]} == {id(p) for p in parts}
    before = {name: x.clone() for name, x in model.state_dict().items()}
    optimizer = torch.optim.AdamW(recipe.groups, lr=1e-3)
    model.losses(item_of(model, model_batch(4), 0.5))["total"].backward()
    optimizer.step()
    unchanged = {n for n, x in model.state_dict().items() if torch.equal(x, before[n])}
    # A shift of all keys changes no softmax.
    unchanged = {name for name in unchanged if not name.endswith("norm_k.bias")}
    assert unchanged == {n for n in before if n.startswith("reconstructor")} - {
        n for n in before if n.endswith("norm_k.bias")
    }


def test_rates_are_those_of_the_published_schedule() -> None:
    train, steps = preset_for("p_rmf", "mosi").train, 41
    assert (train.batch_size, train.epochs, train.patience) == (32, 100, 100)
    wanted = {1: 0.0, 2: 1e-5, 6: 5e-5, 11: 1e-4, 12: 1e-4, 13: 9.99695e-5, 57: 5e-5}
    for epoch, rate in {**wanted, 100: 1.218e-7}.items():
        for step in (0, steps - 1):
            found = learning_rate((epoch - 1) * steps + step, 100 * steps, train)
            assert found == pytest.approx(rate, rel=1e-3), epoch


def test_sixteen_samples_can_be_learnt_with_the_whole_loss() -> None:
    model = small(injection_dropout=0.5, head_dropout=0.5).train()
    batch = batch_of(16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        model.losses(item_of(model, batch, 0.0))["total"].backward()
        optimizer.step()
    with torch.no_grad():
        error = (model.eval()(model.trim(batch)).sentiment - batch.labels).abs().mean()
    assert error < 0.6  # from 1.6


# Prediction


def test_prediction_uses_no_chance_and_no_complete_input() -> None:
    model, batch = small(), model_batch(4)
    step = item_of(model, batch, 0.5)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with torch.no_grad():
        alone = model(step.erased.batch).answer
        assert torch.equal(before, torch.get_rng_state())
        trained = model(step.erased.batch, step.complete)
        assert not torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(alone, trained.answer)
    assert "decoded" not in model(step.erased.batch).extras


def test_both_forms_give_the_same_answers_and_losses() -> None:
    fast, batch = small(), batch_of(5)
    plain = PRMF(fast.config).eval()
    plain.load_state_dict(fast.state_dict())
    found = []
    for model in (fast, plain):
        torch.manual_seed(0)  # of the samples
        step = item_of(model, batch, 0.5)
        model.losses(step)["total"].backward()
        found.append((model(step.erased.batch).answer, gradients(model.embedding)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
    size_of = [torch.stack([g.norm() for g in grads]).norm() for _, grads in found]
    assert size_of[0].item() == pytest.approx(size_of[1].item(), rel=1e-4)


def test_padding_is_hidden_unless_it_is_as_published() -> None:
    batch = batch_of(4)
    behind = {m: ~batch.mask(m) for m in "lav"}
    longer = batch.pad(20, 30, 40)
    changed = replace(
        batch,
        tokens=batch.tokens.masked_fill(behind["l"], 150),
        audio=batch.audio + 5 * behind["a"][..., None],
        vision=batch.vision + 5 * behind["v"][..., None],
    )
    short = batch.select(torch.tensor([3]))
    with torch.no_grad():
        model = small()
        given = model(batch).answer
        torch.testing.assert_close(model(changed).answer, given, rtol=0, atol=1e-5)
        for padded in (short.trim(), short, longer.select(torch.tensor([3]))):
            found = model(padded).answer
            torch.testing.assert_close(found, given[3:], rtol=0, atol=1e-5)
        published = small(masked=False)
        assert published.trim(short.trim()).audio.shape[1] == 30
        for m in ("tokens", "audio", "vision"):
            part = replace(batch, **{m: getattr(changed, m)})
            assert not torch.allclose(
                published(part).answer[3], published(batch).answer[3], atol=1e-5
            )
        # What was removed is no padding: it is seen, as zeros.
        silent = replace(batch, audio=torch.zeros_like(batch.audio))
        shorter = replace(silent, audio_lengths=silent.audio_lengths.clamp(max=3))
        assert not torch.allclose(
            model(silent).answer[0], model(shorter).answer[0], atol=1e-5
        )
        assert UNK not in batch.tokens
