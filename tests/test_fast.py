"""The package's fast forms give what the straightforward computation gives."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lnln.data.batch import CLS, MODALITIES, SEP, Batch, valid_positions
from lnln.data.errors import SettingsError
from lnln.missing.erasing import erase, split_uniforms
from lnln.models.blocks.encoder import EncoderConfig, TextEncoder
from lnln.models.blocks.rows import GROUPS, in_groups, length_groups
from lnln.models.fast import FEW, fast
from lnln.models.lnln import LNLN, LNLNConfig, lnln_losses
from lnln.models.method import LossWeights, Method
from lnln.models.released import network_of

CONFIG = LNLNConfig(
    text_length=12,
    audio_length=40,
    vision_length=30,
    audio_width=5,
    vision_width=7,
    encoder=EncoderConfig(
        vocab_size=130, width=16, depth=2, heads=2, ffn_width=16, dropout=0.0
    ),
)
VARIANTS = ("paper", "released", "paper+padding", "paper+adversary+reconstruction")


def make_batch(lengths: list[tuple[int, int, int]], config: LNLNConfig) -> Batch:
    generator = torch.Generator().manual_seed(len(lengths))
    n_l, n_a, n_v = torch.tensor(lengths).T
    count = len(lengths)
    tokens = torch.randint(104, 129, (count, config.text_length), generator=generator)
    tokens[:, 0] = CLS
    tokens[torch.arange(count), n_l - 1] = SEP
    tokens *= valid_positions(n_l, config.text_length)

    def frames(n: Tensor, size: int, width: int) -> Tensor:
        values = torch.randn(count, size, width, generator=generator)
        return values * valid_positions(n, size)[..., None]

    return Batch(
        tokens,
        n_l,
        frames(n_a, config.audio_length, config.audio_width),
        n_a,
        frames(n_v, config.vision_length, config.vision_width),
        n_v,
        torch.randn(count, generator=generator),
    )


def step(model: LNLN, complete: Batch, rates: Tensor) -> dict[str, Tensor]:
    """Outputs, losses and gradients of one training step."""
    complete = model.trim(complete)
    erased = erase(complete, rates, split_uniforms(complete, 0))
    output = model(erased.batch, complete)
    losses = lnln_losses(output, complete.labels, erased.nominal[:, 0], LossWeights())
    model.zero_grad(set_to_none=True)
    losses.total.backward()
    results = {
        "sentiment": output.sentiment,
        "completeness": output.completeness,
        "proxy_logits": output.proxy_logits,
        "language_logits": output.language_logits,
        "hyper": output.hyper,
        "l_rec": losses.reconstruction,
        "total": losses.total,
        **{f"embedded {m}": output.embedded[m] for m in MODALITIES},
    }
    for m, part in output.reconstructions.items():
        results[f"estimate {m}"] = part.estimate[part.mask]
    gradients = {
        f"gradient of {name}": p.grad
        for name, p in model.named_parameters()
        if p.grad is not None and not name.endswith("norm_k.bias")
    }
    return {k: v.detach().clone() for k, v in (results | gradients).items()}


def assert_agree(fast: dict[str, Tensor], slow: dict[str, Tensor]) -> None:
    assert fast.keys() == slow.keys()
    largest = max(float(v.abs().max()) for k, v in slow.items() if "gradient" in k)
    for name, expected in slow.items():
        tolerance = 1e-4 if "gradient" in name else 1e-5
        scale = float(expected.abs().max())
        floor = 1e-3 * largest if "gradient" in name else 1e-3
        error = float((fast[name] - expected).abs().max())
        assert error <= tolerance * max(scale, floor), f"{name}: {error:.1e}"


@pytest.fixture
def many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that these small batches are cut up, too."""
    monkeypatch.setitem(GROUPS, "cpu", (8, 64))


def both_forms(config: LNLNConfig) -> tuple[LNLN, LNLN]:
    """The network as written and its fast form, with the same weights."""
    torch.manual_seed(1)
    plain = network_of(config.variant)(config).train()
    return plain, fast(copy.deepcopy(plain))


@pytest.mark.parametrize("variant", VARIANTS)
@given(
    lengths=st.lists(
        st.tuples(st.integers(2, 12), st.integers(1, 40), st.integers(1, 30)),
        min_size=1,
        max_size=6,
    ),
    rates=st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=3, max_size=3),
)
@settings(max_examples=8, deadline=None)
def test_any_lengths(
    variant: str, lengths: list[tuple[int, int, int]], rates: list[float]
) -> None:
    plain, quick = both_forms(replace(CONFIG, variant=variant))
    lengths = [*lengths, (12, 40, 30), (2, 1, 1)]
    batch = make_batch(lengths, CONFIG)
    mixed = torch.tensor([rates] * len(batch))
    mixed[0] = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GROUPS, "cpu", (8, 64))
        found = step(quick, batch, mixed)
    assert_agree(found, step(plain, batch, mixed))


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_at_the_lengths_of_mosi(variant: str) -> None:
    small = EncoderConfig(
        vocab_size=130, width=16, depth=1, heads=2, ffn_width=16, dropout=0.0
    )
    plain, quick = both_forms(LNLNConfig(variant=variant, encoder=small))
    batch = make_batch([(50, 375, 500), (14, 55, 65), (2, 1, 1)], plain.config)
    rates = torch.tensor([[0.5, 0.5, 0.5], [0.0, 0.3, 0.0], [0.0, 0.0, 1.0]])
    assert_agree(step(quick, batch, rates), step(plain, batch, rates))


@pytest.mark.parametrize("variant", VARIANTS)
def test_many_corruptions_are_predicted_as_one_after_the_other(variant: str) -> None:
    plain, quick = both_forms(replace(CONFIG, variant=variant))
    batch = make_batch([(12, 40, 30), (5, 9, 9), (2, 1, 1)], CONFIG)
    corruptions = [
        erase(batch, torch.full((3, 3), rate), split_uniforms(batch, seed))
        for rate, seed in ((0.0, 0), (0.4, 1), (1.0, 2))
    ]
    plain.eval()
    quick.eval()
    # All of them share their work, a few do not.
    for some in (corruptions, corruptions[: FEW["cpu"]]):
        slow = Method.predict_corruptions(plain, batch, some)
        for one, other in zip(
            slow, quick.predict_corruptions(batch, some), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_plain_form_is_another_computation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or the comparisons above would compare a thing with itself."""
    plain, quick = both_forms(CONFIG)
    batch = make_batch([(5, 9, 9)], CONFIG)
    calls: list[torch.Size] = []
    original = torch.nn.functional.layer_norm

    def spy(*args: Tensor, **kwargs: Tensor) -> Tensor:
        calls.append(args[0].shape)
        return original(*args, **kwargs)

    monkeypatch.setattr("lnln.models.fast.layer_norm", spy)
    plain(batch)
    assert not calls
    quick(batch)
    assert calls


def test_fast_forms_keep_the_names_of_the_weights_and_can_be_copied() -> None:
    plain, quick = both_forms(replace(CONFIG, variant="released"))
    assert plain.state_dict().keys() == quick.state_dict().keys()
    assert fast(quick) is quick and type(fast(quick)) is type(quick)
    again = copy.deepcopy(quick)
    assert type(again) is type(quick) and type(plain) is not type(quick)
    assert isinstance(quick, LNLN)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=80))
def test_groups_hold_each_row_once_and_waste_little(lengths: list[int]) -> None:
    worth, most = GROUPS["cpu"]
    groups = length_groups(torch.tensor(lengths))
    assert sorted(int(i) for rows, _ in groups for i in rows) == list(
        range(len(lengths))
    )
    for rows, longest in groups:
        assert longest == max(lengths[i] for i in rows)
        assert len(rows) == 1 or longest * len(rows) <= most
    wasted = sum(n * len(rows) - sum(lengths[i] for i in rows) for rows, n in groups)
    assert wasted <= worth * len(groups) * (1 + len(lengths).bit_length())


def test_no_group_computes_padding_behind_its_longest_row(many_groups: None) -> None:
    seen: list[tuple[int, ...]] = []

    def encode(sequence: Tensor, mask: Tensor) -> Tensor:
        assert mask.any(dim=0).all()
        seen.append(tuple(sequence.shape))
        return sequence

    lengths = torch.tensor([30, 3, 17, 29, 1])
    mask = valid_positions(lengths, 40)
    sequence = torch.randn(5, 40, 2) * mask[..., None]
    result = in_groups(encode, sequence, mask, every_position=True)
    assert torch.equal(result, sequence)
    assert len(seen) > 1


def test_a_frozen_encoder_computes_complete_texts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = TextEncoder(replace(CONFIG.encoder, frozen=True), CONFIG.text_length)
    batch = make_batch([(12, 1, 1), (5, 1, 1), (2, 1, 1), (7, 1, 1)], CONFIG)
    tokens, lengths = batch.tokens, batch.token_lengths
    expected = encoder(tokens, lengths)
    encoder.remember(tokens[:3], lengths[:3])
    computed: list[int] = []
    original = encoder._encode

    def spy(tokens: Tensor, lengths: Tensor) -> Tensor:
        computed.append(len(tokens))
        return original(tokens, lengths)

    monkeypatch.setattr(encoder, "_encode", spy)
    mask = batch.mask("l")
    torch.testing.assert_close(encoder(tokens, lengths)[mask], expected[mask])
    assert computed == [1]
    encoder(tokens[:3, :12], lengths[:3])
    assert computed == [1]


def test_a_variant_is_never_built_as_the_papers_network_in_silence() -> None:
    with pytest.raises(SettingsError, match="build_model"):
        LNLN(replace(CONFIG, variant="paper+padding"))
