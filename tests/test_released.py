"""The released variant: its checkpoints, and the facts that tell it from the paper."""

import csv
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_fast import CONFIG, make_batch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import BertConfig

import lnln.model
from lnln.checkpoint import CheckpointError, TrainedModel
from lnln.config import (
    PRESETS,
    RELEASED_CHOICES,
    EncoderConfig,
    LNLNConfig,
    LossWeights,
    as_released,
)
from lnln.data import Batch
from lnln.dmml import HyperModalityLayer, ReleasedHyperLayer
from lnln.grouping import encode_both
from lnln.losses import adversarial_loss, lnln_losses, reconstruction_loss
from lnln.missing import erase, split_uniforms
from lnln.model import LNLN, Output
from lnln.released import load_released, released_name, to_released

NAMES = Path(__file__).parents[2] / "shared/spec/lnln_state_dict_mosi.csv"
TINY_BERT = BertConfig(
    vocab_size=50,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=60,
)
RELEASED = replace(CONFIG, variant="released", fusion_depth=2)


def released_state(dataset: str, bert: BertConfig = TINY_BERT) -> dict[str, Tensor]:
    """Random weights in the released layout."""
    torch.manual_seed(3)
    config = as_released(PRESETS[dataset]).model
    model = LNLN(config, {**bert.to_dict(), "model_type": "bert"})
    state = {
        released_name(k): torch.randn_like(v) for k, v in model.state_dict().items()
    }
    return dict(sorted(state.items()))


# ------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize("dataset", ["mosi", "mosei", "sims"])
def test_to_and_fro_gives_every_tensor_back_bit_for_bit(dataset: str) -> None:
    state = released_state(dataset)
    back = to_released(load_released(state, dataset, TINY_BERT))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_file_is_read_with_or_without_its_wrapping(
    tmp_path: Path, wrapped: bool
) -> None:
    state = released_state("mosi")
    old = "bertmodel.model.embeddings.position_ids"
    content: dict[str, Any] = {**state, old: torch.arange(60)[None]}
    if wrapped:
        content = {"epoch": 7, "state_dict": content, "optimizer": {"state": {}}}
    path = tmp_path / "best.pth"
    torch.save(content, path)
    back = to_released(load_released(path, "mosi", TINY_BERT))
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_sizes_of_bert_are_taken_from_the_tensors() -> None:
    bert = BertConfig(
        vocab_size=70,
        hidden_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=36,
        max_position_embeddings=55,
    )
    model = load_released(released_state("sims", bert), "sims")
    assert model.text_encoder.bert.config.num_attention_heads == 2
    assert model.text_encoder.width == 128


@pytest.mark.parametrize(
    ("dataset", "tensors", "parameters"),
    [("mosi", 420, 6_483_012), ("mosei", 454, 7_102_404), ("sims", 454, 7_112_260)],
)
def test_all_but_bert_has_the_released_size(
    dataset: str, tensors: int, parameters: int
) -> None:
    bert = BertConfig(vocab_size=3, num_hidden_layers=1, intermediate_size=1)
    state = released_state(dataset, bert)
    rest = [v for k, v in state.items() if not k.startswith("bertmodel")]
    assert len(rest) == tensors
    assert sum(v.numel() for v in rest) == parameters


@pytest.mark.skipif(not NAMES.exists(), reason="no list of released names here")
def test_names_and_shapes_are_the_released_ones() -> None:
    with open(NAMES, newline="", encoding="utf-8") as file:
        listed = {row["name"]: row["shape"] for row in csv.DictReader(file)}
    bert = BertConfig(vocab_size=3, num_hidden_layers=1, intermediate_size=1)
    ours = {
        name: "x".join(map(str, tensor.shape))
        for name, tensor in released_state("mosi", bert).items()
        if not name.startswith("bertmodel")
    }
    assert ours == {k: v for k, v in listed.items() if not k.startswith("bertmodel")}


def test_everything_that_does_not_fit_is_listed() -> None:
    state = released_state("mosi")
    state["extra.weight"] = torch.zeros(1)
    del state["dmml.3.bias"]
    state["dmml.3.weight"] = torch.zeros(2, 128)
    with pytest.raises(CheckpointError) as error:
        load_released(state, "mosi", TINY_BERT)
    for fault in (
        "unexpected: extra.weight",
        "missing: dmml.3.bias",
        "shape of dmml.3.weight: (2, 128), expected (1, 128)",
    ):
        assert fault in str(error.value)


def test_another_data_sets_checkpoint_is_refused() -> None:
    with pytest.raises(CheckpointError, match="CrossTransformerEncoder.layers.2"):
        load_released(released_state("mosei"), "mosi", TINY_BERT)
    with pytest.raises(ValueError, match="mosei"):
        load_released(released_state("mosi"), "iemocap")


class Harm:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch harmed",)


@pytest.mark.parametrize("content", ["pickle", "text", "tensor"])
def test_a_file_that_is_no_checkpoint_runs_nothing(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "best.pth"
    if content == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Harm()}))
    elif content == "text":
        path.write_text("version https://git-lfs.example/spec/v1")
    else:
        torch.save({"state_dict": {"h_p": 3}}, path)
    with pytest.raises(CheckpointError, match=r"best\.pth"):
        load_released(path, "mosi")
    assert not (tmp_path / "harmed").exists()


def test_a_model_of_the_paper_has_no_released_form() -> None:
    with pytest.raises(ValueError, match="variant 'paper'"):
        to_released(LNLN(CONFIG))


# ------------------------------------------------------------------ what differs


def build(variant: str = "released") -> LNLN:
    torch.manual_seed(0)
    model = LNLN(replace(RELEASED, variant=variant)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def pair(seed: int = 0) -> tuple[Batch, Batch]:
    """A corrupted batch and the complete one, in double precision."""
    batch = make_batch([(12, 40, 30), (7, 11, 9), (3, 1, 2)], CONFIG)
    batch = replace(batch, audio=batch.audio.double(), vision=batch.vision.double())
    rates = torch.tensor([[0.5, 0.5, 0.5], [0.8, 0.0, 0.6], [0.0, 0.4, 0.0]])
    return erase(batch, rates, split_uniforms(batch, seed)).batch, batch


def grads(loss: Tensor, model: LNLN, prefix: str) -> Tensor:
    """All gradients under a prefix as one vector, zeros where there is none."""
    named = [p for n, p in model.named_parameters() if n.startswith(prefix)]
    found = torch.autograd.grad(loss, named, allow_unused=True, retain_graph=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for p, g in zip(named, found, strict=True)
        ]
    )


def l_adv(output: Output) -> Tensor:
    return adversarial_loss(output.proxy_logits, output.language_logits)


def l_sp(output: Output) -> Tensor:
    return (output.sentiment - 1).pow(2).mean()


def test_item_2_reversal_turns_the_generators_gradient_of_both_losses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, (corrupted, complete) = build(), pair()
    with_reversal = model(corrupted, complete)
    monkeypatch.setattr(lnln.model, "reverse_gradient", lambda x: x)
    without = model(corrupted, complete)
    for loss in (l_adv, l_sp):
        one = grads(loss(with_reversal), model, "proxy_generator")
        other = grads(loss(without), model, "proxy_generator")
        assert other.norm() > 1e-9
        assert cosine_similarity(one, other, dim=0) == pytest.approx(-1, abs=1e-9)


def test_item_3_the_language_path_helps_the_discriminator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, (corrupted, complete) = build(), pair()
    one = l_adv(model(corrupted, complete))
    monkeypatch.setattr(lnln.model, "reverse_gradient", lambda x: x)
    other = l_adv(model(corrupted, complete))
    for prefix in ("embedding.l", "completeness_check", "text_encoder"):
        expected = grads(other, model, prefix)
        assert expected.norm() > 1e-9
        torch.testing.assert_close(grads(one, model, prefix), expected)


def test_item_4_what_the_discriminator_sees() -> None:
    model, (corrupted, complete) = build(), pair()
    output = model(corrupted, complete)
    w = output.completeness[:, None, None]
    mixed = (1 - w) * output.proxy + w * output.embedded["l"]
    torch.testing.assert_close(output.proxy_logits, model.discriminator(mixed))
    language = model(complete).embedded["l"]
    torch.testing.assert_close(output.language_logits, model.discriminator(language))
    assert not torch.allclose(output.embedded["l"], language)


def test_items_6_and_7_features_are_reconstructed_and_the_target_learns() -> None:
    model, (corrupted, complete) = build(), pair()
    output = model(corrupted, complete)
    intact = model(complete).embedded
    errors = []
    for m, part in output.reconstructions.items():
        torch.testing.assert_close(part.target, intact[m])
        expected = model.reconstructor[m](output.embedded[m])
        torch.testing.assert_close(part.estimate, expected)
        assert part.target.requires_grad
        errors.append((part.estimate - part.target).pow(2))
    mean = torch.stack(errors).mean()
    torch.testing.assert_close(reconstruction_loss(output.reconstructions), mean)


def test_item_9_padding_matters_as_released_and_not_as_written() -> None:
    corrupted, _ = pair()
    beyond = corrupted.audio.clone()
    beyond[1, 20:] = 1.0
    tokens = corrupted.tokens.clone()
    tokens[2, 8] = 110
    for changed in (
        replace(corrupted, audio=beyond),
        replace(corrupted, tokens=tokens),
    ):
        for variant, moves in (("released", True), ("paper", False)):
            model = build(variant)
            one, other = model(corrupted).sentiment, model(changed).sentiment
            assert (not torch.allclose(one, other, atol=1e-12)) == moves


def test_items_11_and_12_the_stream_is_normalised() -> None:
    torch.manual_seed(0)
    layer = ReleasedHyperLayer(RELEASED)
    hyper, dominant, audio, vision = torch.randn(4, 3, 8, 128).unbind(0)
    once = layer(hyper, dominant, audio, vision)
    torch.testing.assert_close(
        layer(100 * hyper, dominant, audio, vision), once, atol=1e-4, rtol=1e-4
    )
    written = HyperModalityLayer(RELEASED)
    grown = written(100 * hyper, dominant, audio, vision)
    assert not torch.allclose(grown, written(hyper, dominant, audio, vision))


def test_released_attention_maps_reproduce_the_layer() -> None:
    torch.manual_seed(0)
    layer = ReleasedHyperLayer(RELEASED)
    hyper, dominant, audio, vision = torch.randn(4, 3, 8, 128).unbind(0)
    maps = layer.attention_maps(dominant, audio, vision)
    values = (
        layer.to_v_audio(layer.norm_audio(audio)),
        layer.to_v_vision(layer.norm_vision(vision)),
    )
    found = sum(
        (w @ v.unflatten(-1, (8, 16)).transpose(1, 2)).transpose(1, 2).flatten(2)
        for w, v in zip(maps, values, strict=True)
    )
    expected = layer.norm_hyper(hyper) + layer.to_out(found)
    torch.testing.assert_close(layer(hyper, dominant, audio, vision), expected)


def test_item_13_the_first_scale_has_positions() -> None:
    model = build()
    dominant = torch.randn(2, 8, 128, dtype=torch.float64)
    positions = model.dominant_scales.encoder.positions
    torch.testing.assert_close(model.dominant_scales(dominant)[0], dominant + positions)
    written = build("paper").dominant_scales(dominant)[0]
    assert torch.equal(written, dominant)


def test_item_14_initial_values() -> None:
    torch.manual_seed(0)
    model = LNLN(RELEASED)
    named = dict(model.named_parameters())
    positions = torch.cat(
        [p.flatten() for n, p in named.items() if n.endswith("positions")]
    )
    assert float(positions.detach().std()) == pytest.approx(1, abs=0.02)
    assert (named["proxy_generator.tokens"] == 1).all()
    assert (named["hyper_modality.start"] == 1).all()
    for name in ("embedding.a.tokens", "completeness_check.token", "fusion.token"):
        assert (named[name] == 0).all()
    assert (named["proxy_generator.prefix"] == 0).all()
    # LN of a constant is 0: the first layer's stream starts at its norm's bias.
    layer = model.hyper_modality.layers[0]
    start = layer.norm_hyper(model.hyper_modality.start)
    torch.testing.assert_close(start, layer.norm_hyper.bias.expand(1, 8, -1))


def test_item_15_the_proxy_is_read_from_the_second_block() -> None:
    generator = build().proxy_generator
    audio, vision = torch.randn(2, 2, 8, 128, dtype=torch.float64).unbind(0)
    blocks = (generator.prefix, generator.tokens)
    front = [block.expand(2, -1, -1) for block in blocks]
    whole = generator.encoder(torch.cat([*front, audio, vision], dim=1))
    assert whole.shape[1] == 32
    torch.testing.assert_close(generator(audio, vision), whole[:, :8])


def test_item_16_the_completeness_loss_trains_language_and_bert() -> None:
    model, (corrupted, complete) = build(), pair()
    loss = model(corrupted, complete).completeness.sum()
    for prefix in ("embedding.l", "text_encoder", "completeness_check"):
        assert grads(loss, model, prefix).norm() > 1e-9
    assert grads(loss, model, "embedding.a").norm() == 0


def test_item_17_the_query_token_reaches_nothing() -> None:
    model, (corrupted, _) = build(), pair()
    (gradient,) = torch.autograd.grad(
        l_sp(model(corrupted)), [model.fusion.query_positions]
    )
    assert gradient[0, 0].abs().max() == 0
    assert gradient[0, 1:].abs().amax(dim=1).min() > 0


def test_a_batch_with_less_padding_is_padded_to_the_models_lengths() -> None:
    corrupted, _ = pair()
    trained = TrainedModel(build(), PRESETS["mosi"], None, {})
    short = replace(
        corrupted.select(torch.tensor([1, 2])),
        tokens=corrupted.tokens[1:, :7],
        audio=corrupted.audio[1:, :11],
        vision=corrupted.vision[1:, :9],
    )
    torch.testing.assert_close(
        trained(short).sentiment, trained(corrupted).sentiment[1:]
    )


# ------------------------------------------------------------------ variants


@pytest.mark.parametrize("choice", RELEASED_CHOICES)
def test_each_choice_alone_trains_and_changes_something(choice: str) -> None:
    def step(variant: str) -> tuple[Tensor, list[str]]:
        torch.manual_seed(0)
        model = LNLN(replace(CONFIG, variant=variant)).double()
        corrupted, complete = pair()
        output = model(corrupted, complete)
        target = torch.ones(3, dtype=torch.float64)
        losses = lnln_losses(output, corrupted.labels.double(), target, LossWeights())
        losses.total.backward()
        total = sum(
            p.grad.abs().sum() for p in model.parameters() if p.grad is not None
        )
        assert isinstance(total, Tensor) and total.isfinite()
        return total, list(model.state_dict())

    written, names = step("paper")
    changed, other_names = step(f"paper+{choice}")
    assert changed != written or names != other_names


def test_unknown_variants_are_refused_with_the_list() -> None:
    for variant in ("v2", "paper+grl", "released+padding", ""):
        with pytest.raises(ValueError, match="adversary"):
            LNLNConfig(variant=variant)


def test_fusion_depth_and_protocol_of_the_released_presets() -> None:
    depths = {n: as_released(PRESETS[n]).model.fusion_depth for n in ("mosi", "sims")}
    assert depths == {"mosi": 2, "sims": 4}
    assert as_released(PRESETS["mosei"]).model.fusion_depth == 4
    train = as_released(PRESETS["mosi"]).train
    assert (train.schedule, train.masks, train.selection) == ("released",) * 3
    assert train.clip == 0 and not train.standardize


# ------------------------------------------------------------------ shared rows


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("same", [(0, 0, 0), (1, 0, 1), (1, 1, 1)])
def test_equal_rows_are_encoded_once_with_the_same_result(
    same: tuple[int, ...], learns: bool
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 5, requires_grad=True)
    first = torch.randn(3, 2, 4)
    second = torch.where(torch.tensor(same).bool()[:, None, None], first, first + 1)
    encoded: list[int] = []

    def encode(x: Tensor, nothing: None) -> Tensor:
        encoded.append(len(x))
        return (x @ weight).tanh()

    one, two = encode_both(
        encode, (first, None), (second, None), torch.tensor(same).bool(), learns
    )
    assert sum(encoded) == 6 - sum(same)
    expected = (first @ weight).tanh(), (second @ weight).tanh()
    torch.testing.assert_close((one, two), expected)
    assert two.requires_grad == learns
    (found,) = torch.autograd.grad((one + 2 * two).sum(), weight)
    total = expected[0].sum() + (2 * expected[1].sum() if learns else 0)
    torch.testing.assert_close(found, torch.autograd.grad(total, weight)[0])


def test_dropout_keeps_the_two_passes_apart() -> None:
    noisy = replace(
        RELEASED, encoder=EncoderConfig(vocab_size=130, width=16, heads=2, dropout=0.5)
    )
    torch.manual_seed(0)
    model = LNLN(noisy).train()
    batch = make_batch([(12, 40, 30), (7, 11, 9)], CONFIG)
    output = model(batch, batch)
    part = output.reconstructions["l"]
    assert not torch.allclose(part.target, output.embedded["l"])
    assert torch.equal(output.reconstructions["a"].target, output.embedded["a"])
    model.eval()
    output = model(batch, batch)
    assert torch.equal(output.reconstructions["l"].target, output.embedded["l"])
