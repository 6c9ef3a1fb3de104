"""The network: what flows where, forwards and backwards."""

import json
import math
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lnln.models.lnln
from lnln.data.batch import CLS, MODALITIES, SEP, Batch, valid_positions
from lnln.data.errors import SettingsError
from lnln.data.simulated.corpus import simulate
from lnln.missing.erasing import erase, fixed_rates, split_uniforms
from lnln.models import build_model
from lnln.models.blocks.encoder import EncoderConfig, TextEncoder
from lnln.models.blocks.layers import (
    FeedForward,
    MultiHeadAttention,
    TransformerEncoder,
    TransformerLayer,
    reverse_gradient,
)
from lnln.models.lnln import (
    LNLN,
    HyperModalityLayer,
    LNLNConfig,
    ProxyGenerator,
    adversarial_loss,
    correct,
    reconstruction_loss,
)
from lnln.models.method import Output
from lnln.training.presets import PRESETS

TINY = LNLNConfig(
    text_length=7,
    audio_length=6,
    vision_length=5,
    audio_width=3,
    vision_width=4,
    tokens=2,
    width=8,
    heads=2,
    head_width=3,
    ffn_width=6,
    fusion_depth=2,
    hyper_heads=2,
    encoder=EncoderConfig(
        vocab_size=120, width=10, depth=2, heads=2, ffn_width=8, dropout=0.0
    ),
)
CONFIGS = {"tiny": TINY, "mini": PRESETS["mini"].model}


@pytest.fixture(params=["tiny", "mini"])
def config(request: pytest.FixtureRequest) -> LNLNConfig:
    return CONFIGS[request.param]


def build(config: LNLNConfig = TINY, lively: bool = True) -> LNLN:
    """A network; lively: with weights so large that everything has a visible effect."""
    torch.manual_seed(0)
    model = build_model(config)
    if lively:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def make_batch(
    config: LNLNConfig = TINY, lengths: tuple[list[int], ...] | None = None
) -> Batch:
    """Random utterances that leave padding behind all but the first."""
    sizes = (config.text_length, config.audio_length, config.vision_length)
    if lengths is None:
        lengths = ([sizes[0], 4, 2, 1], [sizes[1], 1, 3, 2], [sizes[2], 2, 1, 3])
    generator = torch.Generator().manual_seed(1)
    n_l, n_a, n_v = (torch.tensor(n) for n in lengths)
    count = len(n_l)
    tokens = torch.randint(104, 119, (count, sizes[0]), generator=generator)
    tokens[torch.arange(count), n_l - 1] = SEP
    tokens[:, 0] = CLS
    tokens *= valid_positions(n_l, sizes[0])
    frames = [
        torch.randn(count, size, width, generator=generator)
        * valid_positions(n, size)[..., None]
        for n, size, width in (
            (n_a, sizes[1], config.audio_width),
            (n_v, sizes[2], config.vision_width),
        )
    ]
    labels = torch.randn(count, generator=generator)
    return Batch(tokens, n_l, frames[0], n_a, frames[1], n_v, labels)


def as_double(batch: Batch) -> Batch:
    return replace(batch, audio=batch.audio.double(), vision=batch.vision.double())


def corrupt(batch: Batch, rate: float = 0.5) -> Batch:
    rates = fixed_rates(len(batch), rate)
    return erase(batch, rates, split_uniforms(batch, 0)).batch


def visible(output: Output) -> dict[str, Tensor]:
    """Every tensor of an output, padding of the reconstructions cut out."""
    tensors = {
        "sentiment": output.sentiment,
        "completeness": output.completeness,
        "proxy_logits": output.proxy_logits,
        "language_logits": output.language_logits,
        "proxy": output.proxy,
        "hyper": output.hyper,
        **{f"dominant {i}": d for i, d in enumerate(output.dominants)},
        **{f"embedded {m}": h for m, h in output.embedded.items()},
    }
    for m, part in output.reconstructions.items():
        tensors[f"estimate {m}"] = part.estimate[part.mask]
        tensors[f"target {m}"] = part.target[part.mask]
    return {name: tensor.detach() for name, tensor in tensors.items()}


def assert_same(one: Output, other: Output) -> None:
    want, got = visible(one), visible(other)
    assert want.keys() == got.keys()
    for name in want:
        torch.testing.assert_close(
            got[name],
            want[name],
            rtol=1e-9,
            atol=1e-9,
            msg=lambda m, n=name: f"{n}: {m}",
        )


def gradients(
    loss: Tensor, named: Iterable[tuple[str, Tensor]]
) -> dict[str, Tensor | None]:
    names, tensors = zip(*named, strict=True)
    found = torch.autograd.grad(loss, tensors, allow_unused=True, retain_graph=True)
    return dict(zip(names, found, strict=True))


#: Shifts all scores of a query alike, which the softmax cancels: the fast form of
#: attention leaves it out, elsewhere its gradient is zero.
CANCELLED = "norm_k.bias"


def reached(loss: Tensor, model: LNLN) -> set[str]:
    """The parameters that are in the loss's graph at all."""
    grads = gradients(loss, model.named_parameters())
    return {
        name
        for name, grad in grads.items()
        if grad is not None and not name.endswith(CANCELLED)
    }


def under(model: LNLN, *prefixes: str) -> set[str]:
    names = {n for n, _ in model.named_parameters() if n.startswith(prefixes)}
    assert names
    return {name for name in names if not name.endswith(CANCELLED)}


# ------------------------------------------------------------------ shapes, range


@pytest.mark.parametrize("padded", [True, False])
def test_every_field_of_an_output_has_its_documented_shape(
    config: LNLNConfig, padded: bool
) -> None:
    batch = make_batch(config)
    if not padded:
        batch = batch.select(torch.tensor([1, 2, 3])).trim()
    b, t, d = len(batch), config.tokens, config.width
    out = build(config)(corrupt(batch), batch)
    assert out.sentiment.shape == out.completeness.shape == (b,)
    assert out.proxy_logits.shape == out.language_logits.shape == (b, t, 2)
    assert out.proxy.shape == out.hyper.shape == (b, t, d)
    assert [x.shape for x in out.dominants] == [(b, t, d)] * config.scales
    assert {m: x.shape for m, x in out.embedded.items()} == dict.fromkeys(
        MODALITIES, (b, t, d)
    )
    widths = {"l": config.encoder.width}
    widths |= {"a": config.audio_width, "v": config.vision_width}
    assert tuple(out.reconstructions) == MODALITIES
    for m, part in out.reconstructions.items():
        size = batch.sequence(m).shape[1]
        assert part.estimate.shape == part.target.shape == (b, size, widths[m])
        assert torch.equal(part.mask, batch.mask(m))


def test_without_the_complete_batch_nothing_is_reconstructed() -> None:
    model, batch = build(), make_batch()
    alone = model(batch)
    assert alone.reconstructions == {}
    both = visible(model(batch, batch))
    for name, tensor in visible(alone).items():
        assert torch.equal(tensor, both[name])


def test_completeness_lies_between_0_and_1(config: LNLNConfig) -> None:
    for lively in (True, False):
        w = build(config, lively)(make_batch(config)).completeness
        assert (w > 0).all() and (w < 1).all()


def test_an_untrained_network_is_finite_on_simulated_utterances() -> None:
    batch = simulate("mini", train_size=8).train.batch
    out = build(PRESETS["mini"].model, lively=False)(corrupt(batch), batch)
    assert all(tensor.isfinite().all() for tensor in visible(out).values())


def test_utterances_of_length_1_and_wholly_erased_ones_are_finite(
    config: LNLNConfig,
) -> None:
    model = build(config)
    shortest = make_batch(config, ([1, 2], [1, 1], [1, 1]))
    for batch in (shortest, shortest.trim(), corrupt(make_batch(config), 1.0)):
        out = model(batch, batch)
        assert all(tensor.isfinite().all() for tensor in visible(out).values())
        loss = out.sentiment.sum() + reconstruction_loss(out.reconstructions)
        for name, grad in gradients(loss, model.named_parameters()).items():
            assert grad is None or grad.isfinite().all(), name


@pytest.mark.parametrize("missing", MODALITIES)
def test_the_prediction_depends_on_every_modality(missing: str) -> None:
    model, batch = build(), make_batch()
    available = tuple(m for m in MODALITIES if m != missing)
    rates = fixed_rates(len(batch), 0.0, available)
    without = erase(batch, rates, split_uniforms(batch, 0)).batch
    change = (model(batch).sentiment - model(without).sentiment).abs()
    assert change[0] > 1e-4


# ------------------------------------------------------------------ padding, batches


def test_what_stands_behind_the_lengths_changes_no_output(config: LNLNConfig) -> None:
    model, batch = build(config).double(), as_double(make_batch(config))
    generator = torch.Generator().manual_seed(2)
    noise = torch.randint(0, 119, batch.tokens.shape, generator=generator)
    dirty = replace(
        batch,
        tokens=torch.where(batch.mask("l"), batch.tokens, noise),
        audio=torch.where(batch.mask("a")[..., None], batch.audio, 50.0),
        vision=torch.where(batch.mask("v")[..., None], batch.vision, -50.0),
    )
    assert not torch.equal(dirty.tokens, batch.tokens)
    assert_same(model(batch, batch), model(dirty, dirty))


def test_trimming_changes_no_output(config: LNLNConfig) -> None:
    model = build(config).double()
    batch = as_double(make_batch(config)).select(torch.tensor([1, 2, 3]))
    trimmed = batch.trim()
    assert trimmed.tokens.shape[1] < batch.tokens.shape[1]
    assert_same(model(corrupt(batch), batch), model(corrupt(batch).trim(), trimmed))


def test_every_utterance_is_predicted_as_if_alone(config: LNLNConfig) -> None:
    model, batch = build(config).double(), as_double(make_batch(config))
    together = visible(model(batch))
    for i in range(len(batch)):
        alone = visible(model(batch.select(torch.tensor([i])).trim()))
        for name, tensor in together.items():
            torch.testing.assert_close(alone[name][0], tensor[i], rtol=1e-9, atol=1e-9)


def test_the_last_real_position_matters(config: LNLNConfig) -> None:
    model, batch = build(config), make_batch(config)
    row, before = 1, model(batch)
    for m in ("a", "v"):
        changed = batch.sequence(m).clone()
        changed[row, int(batch.lengths(m)[row]) - 1] += 5
        name = {"a": "audio", "v": "vision"}[m]
        after = model(replace(batch, **{name: changed}))
        difference = (after.embedded[m] - before.embedded[m]).abs().amax(dim=(1, 2))
        assert difference[row] > 1e-4
        assert difference[[0, 2, 3]].max() < 1e-6


def test_erased_words_are_attended_to_like_other_words() -> None:
    model, batch = build(), make_batch()
    erased = corrupt(batch, 1.0).tokens[:1]
    features = [
        model.text_encoder(erased[:, [0, *[1] * count, -1]], torch.tensor([2 + count]))
        for count in (1, 4)
    ]
    assert (features[0][0, 0] - features[1][0, 0]).abs().max() > 1e-4


def test_evaluation_is_deterministic_and_training_drops_out() -> None:
    noisy = replace(TINY, dropout=0.3)
    model, batch = build(noisy), make_batch()
    assert torch.equal(model(batch).sentiment, model(batch).sentiment)
    model.train()
    assert not torch.equal(model(batch).sentiment, model(batch).sentiment)


# ------------------------------------------------------------------ the equations


def test_the_corrected_feature_is_language_at_1_and_proxy_at_0() -> None:
    proxy, language = torch.randn(2, 3, 2, 5).unbind(0)
    assert torch.equal(correct(proxy, language, torch.ones(3)), language)
    assert torch.equal(correct(proxy, language, torch.zeros(3)), proxy)
    w = torch.tensor([0.25, 0.0, 1.0])
    want = torch.stack([0.75 * proxy[0] + 0.25 * language[0], proxy[1], language[2]])
    torch.testing.assert_close(correct(proxy, language, w), want)


def test_the_first_dominant_feature_mixes_by_the_estimated_completeness() -> None:
    out = build()(make_batch())
    w = out.completeness[:, None, None]
    want = (1 - w) * out.proxy + w * out.embedded["l"]
    torch.testing.assert_close(out.dominants[0], want)


def test_the_proxy_comes_from_audio_and_vision_alone() -> None:
    model, batch = build(), make_batch()
    other = replace(batch, tokens=batch.tokens.clamp(max=104))
    assert torch.equal(model(batch).proxy, model(other).proxy)
    for m in ("a", "v"):
        available = tuple(x for x in MODALITIES if x != m)
        rates = fixed_rates(len(batch), 0.0, available)
        without = erase(batch, rates, split_uniforms(batch, 0)).batch
        assert (model(batch).proxy - model(without).proxy).abs().max() > 1e-4


def test_completeness_is_judged_by_language_alone() -> None:
    model, batch = build(), make_batch()
    rates = fixed_rates(len(batch), 0.0, ("l",))
    only_text = erase(batch, rates, split_uniforms(batch, 0)).batch
    assert torch.equal(model(batch).completeness, model(only_text).completeness)


def test_later_scales_continue_from_the_earlier_ones() -> None:
    model = build()
    first, second, third = model.dominant_scales(torch.randn(3, 2, 8))
    encoder = model.dominant_scales.encoder
    start = first + encoder.positions
    torch.testing.assert_close(second, encoder.layers[0](start))
    torch.testing.assert_close(third, encoder.layers[1](second))


def test_the_prediction_is_linear_in_the_mean_fused_token_without_the_extra_one() -> (
    None
):
    model = build()
    fused = torch.randn(4, 3, 8)
    head = model.predictor.head
    want = (fused[:, 1] + fused[:, 2]) / 2 @ head.weight[0] + head.bias
    torch.testing.assert_close(model.predictor(fused), want)


def test_the_fusion_reads_the_dominant_feature_as_query_and_hyper_as_memory() -> None:
    model = build()
    fusion = model.fusion
    dominant, hyper = torch.randn(2, 4, 2, 8).unbind(0)
    x = torch.cat([fusion.token.expand(4, -1, -1), dominant], dim=1)
    memory = torch.cat([fusion.token.expand(4, -1, -1), hyper], dim=1)
    x, memory = x + fusion.query_positions, memory + fusion.memory_positions
    for layer in fusion.layers:
        x = layer(x, memory)
    torch.testing.assert_close(fusion(dominant, hyper), x)


def test_the_residual_of_a_hyper_layer_is_not_normalised() -> None:
    torch.manual_seed(0)
    layer = HyperModalityLayer(TINY)
    hyper, dominant, audio, vision = torch.randn(4, 3, 2, 8).unbind(0)
    once = layer(hyper, dominant, audio, vision)
    twice = layer(2 * hyper, dominant, audio, vision)
    torch.testing.assert_close(twice - once, hyper)


def test_hyper_attention_maps_reproduce_the_forward_pass() -> None:
    torch.manual_seed(0)
    layer = HyperModalityLayer(TINY)
    hyper, dominant, audio, vision = torch.randn(4, 3, 2, 8).unbind(0)
    maps = layer.attention_maps(dominant, audio, vision)
    out = hyper
    for weights, attention, source in zip(
        maps,
        (layer.to_audio, layer.to_vision),
        (layer.norm_audio(audio), layer.norm_vision(vision)),
        strict=True,
    ):
        assert weights.shape == (3, 2, 2, 2)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 2, 2))
        values = attention.to_v(source).view(3, 2, 2, 4)
        mixed = torch.einsum("bhqk,bkhc->bqhc", weights, values).reshape(3, 2, 8)
        out = out + attention.to_out(mixed)
    torch.testing.assert_close(layer(hyper, dominant, audio, vision), out)


def test_the_two_attentions_of_a_hyper_layer_do_not_read_each_others_modality() -> None:
    torch.manual_seed(0)
    layer = HyperModalityLayer(TINY)
    hyper, dominant, audio, vision = torch.randn(4, 3, 2, 8).unbind(0)
    one, two = layer.attention_maps(dominant, audio, vision)
    three, four = layer.attention_maps(dominant, 2 * audio.flip(-1), vision)
    assert not torch.allclose(one, three)
    assert torch.equal(two, four)


def test_the_hyper_stream_reads_one_scale_per_layer() -> None:
    model = build()
    audio, vision, *dominants = torch.randn(5, 3, 2, 8).unbind(0)
    hyper = model.hyper_modality.start.expand(3, -1, -1)
    for layer, dominant in zip(model.hyper_modality.layers, dominants, strict=True):
        hyper = layer(hyper, dominant, audio, vision)
    torch.testing.assert_close(
        model.hyper_modality(tuple(dominants), audio, vision), hyper
    )


def attend_by_hand(
    attention: MultiHeadAttention, query: Tensor, key: Tensor, value: Tensor, n: int
) -> Tensor:
    """One utterance, head by head, over the first n keys."""
    q, k, v = attention.to_q(query), attention.to_k(key)[:n], attention.to_v(value)[:n]
    width = q.shape[-1] // attention.heads
    heads = []
    for h in range(attention.heads):
        mine = slice(h * width, (h + 1) * width)
        scores = q[:, mine] @ k[:, mine].T / math.sqrt(width)
        heads.append(torch.softmax(scores, dim=-1) @ v[:, mine])
    return attention.to_out(torch.cat(heads, dim=-1))


def test_attention_is_softmax_of_scaled_products_over_the_real_keys() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2, 3)
    query = torch.randn(2, 4, 8)
    key, value = torch.randn(2, 2, 5, 8).unbind(0)
    lengths = torch.tensor([5, 2])
    mask = valid_positions(lengths, 5)
    out = attention(query, key, value, mask)
    weights = attention.attention_map(query, key, mask)
    for i, n in enumerate(lengths.tolist()):
        want = attend_by_hand(attention, query[i], key[i], value[i], n)
        torch.testing.assert_close(out[i], want)
        assert (weights[i, :, :, n:] == 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, 4))
    torch.testing.assert_close(
        attention(query, key, value),
        attention(query, key, value, torch.ones(2, 5, dtype=torch.bool)),
    )


def test_attention_has_no_query_key_or_value_bias() -> None:
    attention = MultiHeadAttention(128, 8, 64)
    shapes = {name: tuple(p.shape) for name, p in attention.named_parameters()}
    assert shapes == {
        "to_q.weight": (512, 128),
        "to_k.weight": (512, 128),
        "to_v.weight": (512, 128),
        "to_out.weight": (128, 512),
        "to_out.bias": (128,),
    }


def test_a_layer_is_pre_norm_with_three_norms_and_two_residuals() -> None:
    torch.manual_seed(0)
    layer = TransformerLayer(8, 2, 3, 6)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x, memory = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    for given_memory, m in ((memory, memory), (None, x)):
        mid = x + layer.attention(layer.norm_q(x), layer.norm_k(m), layer.norm_v(m))
        want = mid + layer.ffn(layer.norm_ffn(mid))
        torch.testing.assert_close(layer(x, given_memory), want)


def test_the_feed_forward_part_is_linear_gelu_linear() -> None:
    torch.manual_seed(0)
    ffn = FeedForward(8, 6)
    x = torch.randn(3, 8)
    hidden = x @ ffn[0].weight.T + ffn[0].bias
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    torch.testing.assert_close(ffn(x), gelu @ ffn[2].weight.T + ffn[2].bias)


def test_an_encoder_knows_positions_and_has_no_final_norm() -> None:
    torch.manual_seed(0)
    encoder = TransformerEncoder(5, 2, 8, 2, 3, 6)
    x = torch.randn(3, 4, 8)
    want = x + encoder.positions[:, :4]
    for layer in encoder.layers:
        want = layer(want)
    torch.testing.assert_close(encoder(x), want)
    swapped = encoder(x.flip(1)).flip(1)
    assert not torch.allclose(swapped, encoder(x), atol=1e-4)


# ------------------------------------------------------------------ gradient reversal


@given(st.floats(-3, 3), st.integers(0, 100))
@settings(max_examples=30)
def test_gradient_reversal_is_the_identity_forwards_and_exact_backwards(
    strength: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(3, 4, dtype=torch.float64, generator=generator)
    y = reverse_gradient(x, strength)
    assert torch.equal(y, x)
    (grad,) = torch.autograd.grad((y * weight).sum(), x)
    assert torch.equal(grad, -strength * weight)


def test_gradient_reversal_has_strength_1_by_default() -> None:
    x = torch.ones(3, requires_grad=True)
    reverse_gradient(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [-1, -1, -1]


def both_ways(
    loss: Callable[[Output], Tensor], monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Tensor | None], dict[str, Tensor | None]]:
    """Gradients of a loss with the reversal in the network, and without it."""
    model, batch = build().double(), as_double(make_batch())
    named = list(model.named_parameters())
    with_reversal = gradients(loss(model(batch)), named)
    monkeypatch.setattr(lnln.models.lnln, "reverse_gradient", lambda x, strength=1.0: x)
    return with_reversal, gradients(loss(model(batch)), named)


def l_adv(output: Output) -> Tensor:
    return adversarial_loss(output.proxy_logits, output.language_logits)


def l_sp(output: Output) -> Tensor:
    return (output.sentiment - 1).pow(2).mean()


def test_the_generators_side_climbs_the_adversarial_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reversed_, plain = both_ways(l_adv, monkeypatch)
    sides = ("proxy_generator", "embedding.a", "embedding.v")
    for side in sides:
        names = [n for n in plain if n.startswith(side) and not n.endswith(CANCELLED)]
        size = 0.0
        for name in names:
            one, other = reversed_[name], plain[name]
            assert one is not None and other is not None
            torch.testing.assert_close(one, -other)
            size += float(other.abs().sum())
        assert size > 1e-6, side


def test_the_discriminator_descends_the_adversarial_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reversed_, plain = both_ways(l_adv, monkeypatch)
    for name in (n for n in plain if n.startswith("discriminator")):
        one, other = reversed_[name], plain[name]
        assert one is not None and other is not None
        assert other.abs().max() > 1e-6
        torch.testing.assert_close(one, other)


def test_the_adversarial_loss_trains_nothing_of_the_language_path() -> None:
    model = build()
    assert reached(l_adv(model(make_batch())), model) == under(
        model, "discriminator", "proxy_generator", "embedding.a", "embedding.v"
    )


def test_the_sentiment_loss_is_not_reversed(monkeypatch: pytest.MonkeyPatch) -> None:
    reversed_, plain = both_ways(l_sp, monkeypatch)
    for name, one in reversed_.items():
        other = plain[name]
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other)
    generator = reversed_["proxy_generator.tokens"]
    assert generator is not None and generator.abs().max() > 1e-8


def test_the_discriminator_sees_the_proxy_and_the_language_feature() -> None:
    model = build()
    out = model(make_batch())
    torch.testing.assert_close(model.discriminator(out.proxy), out.proxy_logits)
    torch.testing.assert_close(
        model.discriminator(out.embedded["l"]), out.language_logits
    )


# ------------------------------------------------------------------ who learns what


def test_the_reconstruction_loss_trains_only_reconstructors_and_text_encoder() -> None:
    model, batch = build(), make_batch()
    out = model(corrupt(batch), batch)
    loss = reconstruction_loss(out.reconstructions)
    assert reached(loss, model) == under(model, "reconstructor", "text_encoder")


def test_a_modalitys_reconstruction_trains_its_own_reconstructor() -> None:
    model, batch = build(), make_batch()
    out = model(corrupt(batch), batch)
    for m in MODALITIES:
        loss = reconstruction_loss({m: out.reconstructions[m]})
        own = under(model, f"reconstructor.{m}")
        text = under(model, "text_encoder") if m == "l" else set()
        assert reached(loss, model) == own | text


def test_reconstruction_targets_are_the_complete_input_without_gradient() -> None:
    model, batch = build(), make_batch()
    parts = model(corrupt(batch), batch).reconstructions
    assert not any(part.target.requires_grad for part in parts.values())
    assert torch.equal(parts["a"].target, batch.audio)
    assert torch.equal(parts["v"].target, batch.vision)
    features = model.text_encoder(batch.tokens, batch.token_lengths)
    mask = batch.mask("l")
    torch.testing.assert_close(parts["l"].target[mask], features[mask])


def test_reconstructions_are_estimated_from_the_corrupted_input() -> None:
    model, batch = build(), make_batch()
    one = model(corrupt(batch), batch).reconstructions
    nothing = replace(batch, audio=0 * batch.audio, vision=0 * batch.vision)
    two = model(corrupt(batch), nothing).reconstructions
    for m in MODALITIES:
        assert torch.equal(one[m].estimate, two[m].estimate)


def test_the_completeness_loss_trains_language_embedding_check_and_text_encoder() -> (
    None
):
    model = build()
    assert reached(model(make_batch()).completeness.sum(), model) == under(
        model, "completeness_check", "embedding.l", "text_encoder"
    )


def test_the_sentiment_loss_trains_everything_else_but_what_cannot_matter() -> None:
    """A key's constant part shifts all scores alike, which the softmax cancels."""
    model = build().double()
    batch = as_double(make_batch())
    loss = l_sp(model(batch))
    grads = gradients(loss, model.named_parameters())
    absent = {name for name, grad in grads.items() if grad is None}
    assert {n for n in absent if not n.endswith(CANCELLED)} == under(
        model, "reconstructor", "discriminator"
    )
    zero = {
        name
        for name, grad in grads.items()
        if grad is not None and grad.abs().max() < 1e-13
    }
    key_constants = {
        name
        for name in grads.keys() - absent
        if name.endswith(("norm_k.bias", "self.key.bias"))
    }
    assert key_constants
    assert zero == key_constants
    positions = grads["fusion.query_positions"]
    assert positions is not None
    per_place = positions[0].abs().amax(dim=-1)
    assert per_place[0] == 0 and (per_place[1:] > 1e-10).all()


def test_untrained_weights_learn_from_every_loss_term(config: LNLNConfig) -> None:
    model, batch = build(config, lively=False), make_batch(config)
    out = model(corrupt(batch), batch)
    terms = (l_sp(out), l_adv(out), (out.completeness - 1).pow(2).mean())
    for loss in (*terms, reconstruction_loss(out.reconstructions)):
        names = reached(loss, model)
        grads = gradients(loss, model.named_parameters())
        assert sum(float(grads[n].abs().sum()) for n in names) > 1e-4


def test_the_generator_reads_its_own_tokens() -> None:
    torch.manual_seed(0)
    generator = ProxyGenerator(TINY)
    audio, vision = torch.randn(2, 3, 2, 8).unbind(0)
    x = torch.cat([generator.tokens.expand(3, -1, -1), audio, vision], dim=1)
    want = generator.encoder(x)
    assert want.shape == (3, 6, 8)
    torch.testing.assert_close(generator(audio, vision), want[:, :2])


# ------------------------------------------------------------------ the text encoder


def test_a_frozen_encoder_has_no_gradient_and_stays_in_evaluation_mode() -> None:
    encoder = replace(TINY.encoder, frozen=True, dropout=0.5)
    model = build(replace(TINY, encoder=encoder))
    before = {n: p.clone() for n, p in model.text_encoder.named_parameters()}
    model.train()
    assert model.training and not model.text_encoder.bert.training
    assert not any(module.training for module in model.text_encoder.bert.modules())
    batch = make_batch()
    out = model(batch, batch)
    assert torch.equal(out.sentiment, model(batch).sentiment)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.1, weight_decay=0.1)
    (out.sentiment.sum() + reconstruction_loss(out.reconstructions)).backward()
    assert all(p.grad is None for p in model.text_encoder.parameters())
    assert model.embedding["l"].project.weight.grad is not None
    optimizer.step()
    for name, parameter in model.text_encoder.named_parameters():
        assert torch.equal(parameter, before[name])


def test_an_encoder_that_is_fine_tuned_follows_the_models_mode() -> None:
    model = build()
    assert not model.text_encoder.bert.training
    assert model.train().text_encoder.bert.training


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("offline")
def test_a_local_pretrained_folder_loads_offline_with_the_same_features(
    tmp_path: Path,
) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(3)
    source = BertModel(
        BertConfig(
            vocab_size=120,
            hidden_size=12,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=16,
        )
    ).eval()
    source.save_pretrained(tmp_path)
    config = replace(TINY, encoder=EncoderConfig(name=str(tmp_path)))
    model = build_model(config).eval()
    batch = make_batch()
    with torch.no_grad():
        want = source(batch.tokens, batch.mask("l").long()).last_hidden_state
        got = model.text_encoder(batch.tokens, batch.token_lengths)
    torch.testing.assert_close(got[batch.mask("l")], want[batch.mask("l")])
    assert model.text_encoder.width == 12
    assert model(batch, batch).sentiment.shape == (4,)
    # What a checkpoint stores is plain, names no folder, and builds the same shapes.
    architecture = model.text_encoder.architecture()
    assert str(tmp_path) not in json.dumps(architecture)
    again = TextEncoder(config.encoder, config.text_length, architecture).eval()
    again.load_state_dict(model.text_encoder.state_dict())
    with torch.no_grad():
        same = again(batch.tokens, batch.token_lengths)
    torch.testing.assert_close(same, got)


@pytest.mark.usefixtures("offline")
def test_pickled_weights_of_a_folder_are_never_loaded(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    bert = BertConfig(
        vocab_size=120,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    bert.architectures = ["BertModel"]
    bert.save_pretrained(tmp_path)
    torch.save(BertModel(bert).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(SettingsError, match="convert them once"):
        TextEncoder(EncoderConfig(name=str(tmp_path)), 10)


def test_the_small_encoder_has_the_configured_sizes() -> None:
    bert = TextEncoder(TINY.encoder, TINY.text_length).bert.config
    assert (bert.vocab_size, bert.hidden_size, bert.num_hidden_layers) == (120, 10, 2)
    assert (bert.num_attention_heads, bert.intermediate_size) == (2, 8)
    assert bert.max_position_embeddings == TINY.text_length


# ------------------------------------------------------------------ presets


@pytest.mark.parametrize(
    ("name", "lengths", "widths", "beta", "bert"),
    [
        ("mosi", (50, 375, 500), (5, 20), 0.8, "bert-base-uncased"),
        ("mosei", (50, 500, 500), (74, 35), 0.8, "bert-base-uncased"),
        ("sims", (39, 400, 55), (33, 709), 0.6, "bert-base-chinese"),
    ],
)
def test_a_preset_has_the_papers_numbers(
    name: str,
    lengths: tuple[int, ...],
    widths: tuple[int, ...],
    beta: float,
    bert: str,
) -> None:
    preset = PRESETS[name]
    model, loss, train = preset.model, preset.loss, preset.train
    assert preset.name == name
    assert (model.tokens, model.width) == (8, 128)
    assert (model.text_length, model.audio_length, model.vision_length) == lengths
    assert (model.audio_width, model.vision_width) == widths
    assert (model.heads, model.head_width, model.ffn_width) == (8, 64, 128)
    assert (model.hyper_heads, model.scales, model.fusion_depth) == (8, 3, 4)
    assert (model.embedding_depth, model.generator_depth) == (2, 2)
    assert (model.completeness_depth, model.reconstructor_depth) == (2, 2)
    assert model.dropout == 0
    assert (loss.alpha, loss.beta, loss.gamma, loss.delta) == (0.9, beta, 0.1, 1.0)
    assert (train.batch_size, train.epochs, train.learning_rate) == (64, 200, 1e-4)
    assert (train.weight_decay, train.warmup, train.seed) == (1e-4, 0.1, 1111)
    assert 0 < train.patience < train.epochs  # early stop
    assert (model.encoder.name, model.encoder.frozen) == (bert, False)


def test_a_network_of_the_papers_size_has_its_parameter_counts() -> None:
    """Layers of 296,320 parameters, as counted in the released model."""
    small_text = EncoderConfig(vocab_size=104, width=768, depth=1, heads=2, ffn_width=8)
    model = build_model(replace(PRESETS["mosi"].model, encoder=small_text))

    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    layer = 296_320
    assert count(model.fusion.layers[0]) == layer
    # Two layers, 8 tokens, a position for every token and frame, the linear map.
    assert count(model.embedding["l"]) == 2 * layer + 128 * (8 + 58 + 768 + 1)
    assert count(model.embedding["a"]) == 2 * layer + 128 * (8 + 383 + 5 + 1)
    assert count(model.embedding["v"]) == 2 * layer + 128 * (8 + 508 + 20 + 1)
    assert count(model.dominant_scales) == 593_664
    assert count(model.completeness_check) == 593_920 + 8_321
    assert count(model.discriminator) == 8_386
    assert count(model.predictor) == 129
