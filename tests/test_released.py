"""The released variant: its checkpoints, and what flows where in it."""

import csv
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_model import (
    TINY,
    as_double,
    build,
    corrupt,
    gradients,
    l_adv,
    l_sp,
    make_batch,
    reached,
    under,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertModel

import lnln.models.released
from lnln.data.batch import MODALITIES, Batch
from lnln.missing.erasing import Erased, erase, fixed_rates, split_uniforms
from lnln.models import build_model
from lnln.models.blocks.encoder import TextEncoder
from lnln.models.blocks.rows import encode_both
from lnln.models.lnln import (
    LNLNConfig,
    correct,
    lnln_losses,
    reconstruction_loss,
)
from lnln.models.method import RELEASED_CHOICES, LossWeights, Step
from lnln.models.released import PrefixedGenerator, ReleasedHyperLayer
from lnln.paper.released import load_released, to_released
from lnln.training.checkpoint import CheckpointError, TrainedModel
from lnln.training.presets import PRESETS, as_released
from lnln.training.settings import Preset

RELEASED = replace(TINY, variant="released")
#: T_l, T_a, T_v, d_a, d_v, fusion layers.
SHAPES = {
    "mosi": (50, 375, 500, 5, 20, 2),
    "mosei": (50, 500, 500, 74, 35, 4),
    "sims": (39, 400, 55, 33, 709, 4),
}
NON_BERT = {
    "mosi": (420, 6_483_012),
    "mosei": (454, 7_102_404),
    "sims": (454, 7_112_260),
}
BERT = "bertmodel.model."
POSITION_IDS = f"{BERT}embeddings.position_ids"
CSV = Path(__file__).parents[2] / "shared/spec/lnln_state_dict_mosi.csv"
State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def small_bert(width: int = 16, depth: int = 2) -> BertConfig:
    return BertConfig(
        vocab_size=120,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=64,
    )


# ------------------------------------------------------------------ the released layout


def with_bias(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def layer_layout(name: str) -> Shapes:
    shapes: Shapes = {}
    for norm in ("0.norm_q", "0.norm_k", "0.norm_v", "1.norm"):
        shapes |= with_bias(f"{name}.{norm}", 128)
    for part in "qkv":
        shapes[f"{name}.0.fn.to_{part}.weight"] = (512, 128)
    shapes |= with_bias(f"{name}.0.fn.to_out.0", 128, 512)
    for part in (0, 3):
        shapes |= with_bias(f"{name}.1.fn.net.{part}", 128, 128)
    return shapes


def encoder_layout(name: str, length: int, extra: int = 0, depth: int = 2) -> Shapes:
    shapes: Shapes = {f"{name}.pos_embedding": (1, extra + length, 128)}
    if extra:
        shapes[f"{name}.extra_token"] = (1, extra, 128)
    for i in range(depth):
        shapes |= layer_layout(f"{name}.encoder.layers.{i}")
    return shapes


def hyper_layout(name: str) -> Shapes:
    shapes: Shapes = {}
    for i in (1, 2, 3, 4):
        shapes |= with_bias(f"{name}.0.norm{i}", 128)
    for part in ("q", "k_ta", "k_tv", "v_ta", "v_tv"):
        shapes[f"{name}.0.fn.to_{part}.weight"] = (128, 128)
    return shapes | with_bias(f"{name}.0.fn.to_out.0", 128, 128)


def layout(dataset: str, bert: BertConfig) -> Shapes:
    """Every tensor of a released checkpoint, written without `lnln.paper.released`."""
    t_l, t_a, t_v, d_a, d_v, fusion = SHAPES[dataset]
    inputs = {"l": (t_l, bert.hidden_size), "a": (t_a, d_a), "v": (t_v, d_v)}
    shapes: Shapes = {"h_hyper": (1, 8, 128), "h_p": (1, 8, 128)}
    for name, tensor in BertModel(bert).state_dict().items():
        shapes[BERT + name] = tuple(tensor.shape)
    for m, (length, width) in inputs.items():
        shapes |= with_bias(f"proj_{m}.0", 128, width)
        shapes |= encoder_layout(f"proj_{m}.1", length, extra=8)
    shapes |= encoder_layout("proxy_dominate_modality_generator", 24, extra=8)
    shapes |= encoder_layout("completeness_check.0", 8, extra=1)
    for name in (*(f"reconstructor.{i}" for i in range(3)), "dmml.0"):
        shapes |= encoder_layout(name, 8)
    for head, out in (("effective_discriminator", 2), ("completeness_check.1", 1)):
        shapes |= with_bias(f"{head}.0", 64, 128) | with_bias(f"{head}.2", out, 64)
    for i in range(3):
        shapes |= hyper_layout(f"dmml.1.layers.{i}")
    shapes["dmml.2.extra_token"] = (1, 1, 128)
    for stream in "st":
        shapes[f"dmml.2.pos_embedding_{stream}"] = (1, 9, 128)
    for i in range(fusion):
        shapes |= layer_layout(f"dmml.2.CrossTransformerEncoder.layers.{i}")
    return shapes | with_bias("dmml.3", 1, 128)


def random_state(dataset: str = "mosi", bert: BertConfig | None = None) -> State:
    generator = torch.Generator().manual_seed(4)
    return {
        name: 0.05 * torch.randn(shape, generator=generator)
        for name, shape in layout(dataset, bert or small_bert()).items()
    }


def without_bert(state: State) -> State:
    return {k: v for k, v in state.items() if not k.startswith(BERT)}


@pytest.fixture(scope="module")
def mosi() -> State:
    return random_state("mosi")


def assert_equal_states(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


# ------------------------------------------------------------------ there and back


@pytest.mark.parametrize("dataset", SHAPES)
def test_a_checkpoint_comes_back_bit_for_bit(dataset: str, tmp_path: Path) -> None:
    state = random_state(dataset)
    file = tmp_path / "best.pth"
    torch.save({"epoch": 7, "state_dict": state, "optimizer": {"state": {}}}, file)
    model = load_released(file, dataset)
    assert_equal_states(to_released(model), state)
    assert not model.training
    config = model.config
    lengths = (config.text_length, config.audio_length, config.vision_length)
    widths = (config.audio_width, config.vision_width)
    assert (*lengths, *widths, config.fusion_depth) == SHAPES[dataset]


def whole(state: State) -> dict[str, Any]:
    return {"epoch": 1, "state_dict": state, "optimizer": {"param_groups": []}}


@pytest.mark.parametrize("wrap", [whole, dict], ids=["whole", "bare"])
@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize("position_ids", [True, False])
def test_every_form_of_a_checkpoint_is_read(
    mosi: State,
    wrap: Callable[[State], Any],
    in_file: bool,
    position_ids: bool,
    tmp_path: Path,
) -> None:
    extra = {POSITION_IDS: torch.arange(64)[None]} if position_ids else {}
    content = wrap(mosi | extra)
    if in_file:
        torch.save(content, tmp_path / "a.pth")
    source = str(tmp_path / "a.pth") if in_file else content
    assert_equal_states(to_released(load_released(source, "mosi")), mosi)


def test_sizes_of_bert_are_read_from_the_tensors() -> None:
    bert = small_bert(width=128, depth=3)
    state = random_state("mosi", bert)
    found, given = load_released(state, "mosi"), load_released(state, "mosi", bert)
    assert_equal_states(to_released(found), state)
    config = found.text_encoder.bert.config
    assert (config.hidden_size, config.num_hidden_layers) == (128, 3)
    assert config.num_attention_heads == 2
    batch = make_batch(found.config)
    torch.testing.assert_close(found(batch).sentiment, given(batch).sentiment)
    assert found(batch).sentiment.isfinite().all()


def test_a_given_bert_configuration_decides_what_tensors_cannot_tell() -> None:
    state = random_state()
    one = load_released(state, "mosi")
    bert = small_bert()
    for given in (bert, bert.to_dict()):
        two = load_released(state, "mosi", given)
        assert two.text_encoder.bert.config.num_attention_heads == 2
        assert_equal_states(to_released(two), state)
    batch = make_batch(one.config)
    assert not torch.allclose(one(batch).embedded["l"], two(batch).embedded["l"])


@pytest.mark.parametrize("dataset", SHAPES)
def test_all_but_bert_has_the_released_size(dataset: str) -> None:
    state = random_state(dataset, small_bert(width=768, depth=1))
    rest = without_bert(to_released(load_released(state, dataset)))
    size = sum(tensor.numel() for tensor in rest.values())
    assert (len(rest), size) == NON_BERT[dataset]


@pytest.mark.skipif(not CSV.exists(), reason="no list of the released tensors")
def test_names_and_shapes_are_those_of_the_released_list() -> None:
    with CSV.open(newline="") as file:
        listed = {row["name"]: row["shape"] for row in csv.DictReader(file)}
    deep = load_released(random_state("mosi", small_bert(depth=12)), "mosi")
    assert to_released(deep).keys() == listed.keys()
    wide = load_released(random_state("mosi", small_bert(768, depth=1)), "mosi")
    for name, tensor in without_bert(to_released(wide)).items():
        assert "x".join(map(str, tensor.shape)) == listed[name], name


def test_equally_shaped_tensors_are_not_mixed_up(mosi: State) -> None:
    ours = load_released(mosi, "mosi").state_dict()
    fusion = "dmml.2.CrossTransformerEncoder.layers"
    pairs = {
        "proxy_generator.tokens": "h_p",
        "hyper_modality.start": "h_hyper",
        "proxy_generator.prefix": "proxy_dominate_modality_generator.extra_token",
        "reconstructor.a.positions": "reconstructor.0.pos_embedding",
        "reconstructor.v.positions": "reconstructor.1.pos_embedding",
        "reconstructor.l.positions": "reconstructor.2.pos_embedding",
        "fusion.query_positions": "dmml.2.pos_embedding_t",
        "fusion.memory_positions": "dmml.2.pos_embedding_s",
        "fusion.layers.1.norm_v.bias": f"{fusion}.1.0.norm_v.bias",
        "fusion.layers.0.norm_ffn.weight": f"{fusion}.0.1.norm.weight",
        "dominant_scales.encoder.layers.1.ffn.2.bias": (
            "dmml.0.encoder.layers.1.1.fn.net.3.bias"
        ),
    }
    names = ("dominant", "audio", "vision", "hyper")
    for i, name in enumerate(names, start=1):
        pairs[f"hyper_modality.layers.2.norm_{name}.weight"] = (
            f"dmml.1.layers.2.0.norm{i}.weight"
        )
    for part in "kv":
        for name, short in (("audio", "ta"), ("vision", "tv")):
            pairs[f"hyper_modality.layers.1.to_{part}_{name}.weight"] = (
                f"dmml.1.layers.1.0.fn.to_{part}_{short}.weight"
            )
    for mine, theirs in pairs.items():
        assert torch.equal(ours[mine], mosi[theirs]), mine


def test_loading_does_not_advance_the_random_state(mosi: State) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_released(mosi, "mosi")
    assert torch.equal(torch.rand(2), expected)


# ------------------------------------------------------------------ what is refused


def test_every_wrong_tensor_is_named(mosi: State) -> None:
    state = dict(mosi)
    missing = ("h_hyper", f"{BERT}pooler.dense.bias", "dmml.0.pos_embedding")
    for name in missing:
        del state[name]
    unexpected = ("dmml.4.weight", f"{BERT}encoder.extra")
    state |= {name: torch.zeros(1) for name in unexpected}
    state["dmml.3.bias"] = torch.zeros(2)
    state["proj_a.1.extra_token"] = torch.zeros(1, 7, 128)
    with pytest.raises(CheckpointError) as caught:
        load_released(state, "mosi")
    for name in missing:
        assert f"missing: {name}\n" in f"{caught.value}\n"
    for name in unexpected:
        assert f"unexpected: {name}\n" in f"{caught.value}\n"
    assert "dmml.3.bias: (2,), expected (1,)" in str(caught.value)
    assert "proj_a.1.extra_token: (1, 7, 128), expected (1, 8, 128)" in str(
        caught.value
    )
    assert str(caught.value).count("\n") == 7


@pytest.mark.parametrize(
    "name",
    [
        "h_p",
        "proj_v.1.pos_embedding",
        "proj_a.0.weight",
        f"{BERT}embeddings.word_embeddings.weight",
        f"{BERT}encoder.layer.0.intermediate.dense.weight",
    ],
)
def test_a_missing_tensor_that_decides_a_size_is_named(mosi: State, name: str) -> None:
    with pytest.raises(CheckpointError, match=f"missing: {re.escape(name)}"):
        load_released({k: v for k, v in mosi.items() if k != name}, "mosi")


def test_weights_of_mosei_are_not_taken_for_those_of_mosi() -> None:
    with pytest.raises(CheckpointError, match="is a checkpoint of mosei"):
        load_released(random_state("mosei"), "mosi")
    with pytest.raises(CheckpointError, match="is a checkpoint of sims"):
        load_released(random_state("sims"), "mosei")


def test_a_deeper_fusion_is_unexpected(mosi: State) -> None:
    stack = "dmml.2.CrossTransformerEncoder.layers"
    deeper = {
        name.replace(f"{stack}.0", f"{stack}.2"): tensor
        for name, tensor in mosi.items()
        if name.startswith(f"{stack}.0")
    }
    with pytest.raises(CheckpointError, match="not a released mosi") as caught:
        load_released({**mosi, **deeper}, "mosi")
    assert str(caught.value).count(f"unexpected: {stack}.2") == len(deeper) == 17


def test_an_unknown_dataset_is_refused_with_the_known_ones(mosi: State) -> None:
    with pytest.raises(ValueError, match=r"'iemocap'.*'mosei', 'mosi', 'sims'"):
        load_released(mosi, "iemocap")


class Touch:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, pickle.dump])
def test_nothing_in_a_file_is_executed(
    save: Callable[..., None], mosi: State, tmp_path: Path
) -> None:
    mark, path = tmp_path / "executed", tmp_path / "best.pth"
    pickle.loads(pickle.dumps(Touch(mark)))
    assert mark.exists(), "the file must be harmful to who unpickles it"
    mark.unlink()
    with path.open("wb") as file:
        save({"state_dict": {"h_p": mosi["h_p"], "x": Touch(mark)}}, file)
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        load_released(path, "mosi")
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello\n",
        b"epoch 12, loss 0.7\n",
        b"(see below)\n",
        b"G",
        b"PK\x03\x04 no",
    ],
)
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="notes.txt"):
        load_released(path, "mosi")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="absent.pth"):
        load_released(tmp_path / "absent.pth", "mosi")


@pytest.mark.parametrize(
    "content",
    [{"h_p": 1.0}, {"state_dict": [1, 2]}, {3: torch.zeros(1)}, {"state_dict": None}],
    ids=["number", "list", "unnamed", "nothing"],
)
def test_what_is_no_state_dict_is_refused(
    content: dict[Any, Any], tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "a.pth")
    for source in (content, tmp_path / "a.pth"):
        with pytest.raises(CheckpointError, match="no state dict of named tensors"):
            load_released(source, "mosi")


@pytest.mark.parametrize("variant", ["paper", "paper+generator"])
def test_only_the_released_variant_has_a_released_form(variant: str) -> None:
    with pytest.raises(ValueError, match=re.escape(variant)):
        to_released(build_model(replace(TINY, variant=variant)))


# ------------------------------------------------------------------ what flows where


def both_versions() -> tuple[Batch, Batch]:
    """The corrupted and the complete batch, in double precision."""
    complete = as_double(make_batch())
    return corrupt(complete), complete


def both_ways(
    loss: Callable[[Any], Tensor], monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Tensor | None], dict[str, Tensor | None]]:
    """Gradients of a loss with the reversal in the network, and without it."""
    model = build(RELEASED).double()
    named = list(model.named_parameters())
    with_reversal = gradients(loss(model(*both_versions())), named)
    monkeypatch.setattr(
        lnln.models.released, "reverse_gradient", lambda x, strength=1.0: x
    )
    return with_reversal, gradients(loss(model(*both_versions())), named)


def flat(grads: dict[str, Tensor | None], *prefixes: str) -> Tensor:
    mine = {n: g for n, g in grads.items() if n.startswith(prefixes)}
    assert mine
    return torch.cat([g.flatten() for g in mine.values() if g is not None])


def cosine(a: Tensor, b: Tensor) -> float:
    assert a.norm() > 1e-6 and b.norm() > 1e-6
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize("loss", [l_adv, l_sp])
def test_the_reversal_turns_the_generators_gradient_of_both_losses(
    loss: Callable[[Any], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    reversed_, without = both_ways(loss, monkeypatch)
    one, other = flat(reversed_, "proxy_generator"), flat(without, "proxy_generator")
    assert cosine(one, other) == pytest.approx(-1, abs=1e-9)
    torch.testing.assert_close(one, -other)


@pytest.mark.parametrize("side", ["embedding.l", "text_encoder", "completeness_check"])
def test_the_mixture_trains_the_language_path_to_help_the_discriminator(
    side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_mixture(output: Any) -> Tensor:
        logits = output.proxy_logits.flatten(0, 1)
        return cross_entropy(logits, torch.ones(len(logits), dtype=torch.long))

    for loss in (on_mixture, l_adv):
        with monkeypatch.context() as patch:
            reversed_, without = both_ways(loss, patch)
        one, other = flat(reversed_, side), flat(without, side)
        assert one.norm() > 1e-6
        torch.testing.assert_close(one, other)


def test_the_discriminator_sees_the_mixture_and_the_complete_language() -> None:
    model = build(RELEASED).double()
    corrupted, complete = both_versions()
    out = model(corrupted, complete)
    mixture = correct(out.proxy, out.embedded["l"], out.completeness)
    torch.testing.assert_close(out.proxy_logits, model.discriminator(mixture))
    language = model(complete).embedded["l"]
    assert not torch.allclose(language, out.embedded["l"])
    torch.testing.assert_close(out.language_logits, model.discriminator(language))


def test_features_are_reconstructed_and_the_target_learns() -> None:
    model = build(RELEASED).double()
    corrupted, complete = both_versions()
    out, intact = model(corrupted, complete), model(complete).embedded
    for m in MODALITIES:
        part = out.reconstructions[m]
        torch.testing.assert_close(
            part.estimate, model.reconstructor[m](out.embedded[m])
        )
        torch.testing.assert_close(part.target, intact[m])
        assert part.mask.all() and part.mask.shape == part.target.shape[:2]
        only_target = {m: part._replace(estimate=part.estimate.detach())}
        loss = reconstruction_loss(only_target)
        names = {f"embedding.{m}", *(["text_encoder"] if m == "l" else [])}
        wanted = {n for n in under(model, *names) if "pooler" not in n}
        assert reached(loss, model) == wanted
        grads = gradients(loss, model.named_parameters())
        for name in names:
            assert flat(grads, name).norm() > 1e-6, name


def test_l_rec_is_a_mean_over_all_elements() -> None:
    out = build(RELEASED).double()(*both_versions())
    parts = out.reconstructions.values()
    errors = torch.cat([p.estimate - p.target for p in parts], dim=1)
    torch.testing.assert_close(
        reconstruction_loss(out.reconstructions), errors.pow(2).mean()
    )


def test_the_first_scale_is_the_mixture_with_positions() -> None:
    model = build(RELEASED)
    out = model(make_batch())
    mixture = correct(out.proxy, out.embedded["l"], out.completeness)
    positions = model.dominant_scales.encoder.positions
    assert positions.abs().max() > 0.1
    torch.testing.assert_close(out.dominants[0], mixture + positions)
    layer = model.dominant_scales.encoder.layers[0]
    torch.testing.assert_close(out.dominants[1], layer(out.dominants[0]))


def test_a_hyper_layer_normalises_its_incoming_stream() -> None:
    layer = build(RELEASED).hyper_modality.layers[1].double()
    assert isinstance(layer, ReleasedHyperLayer)
    hyper, dominant, audio, vision = torch.randn(4, 3, 2, 8).double().unbind(0)
    once = layer(hyper, dominant, audio, vision)
    scaled = layer(100 * hyper, dominant, audio, vision)
    torch.testing.assert_close(scaled, once, rtol=1e-3, atol=1e-3)
    update = layer(torch.zeros_like(hyper), dominant, audio, vision)
    residual = layer.norm_hyper(hyper) - layer.norm_hyper.bias
    torch.testing.assert_close(once - update, residual)


def test_a_hyper_layer_has_one_query_map_and_one_output_map() -> None:
    layer = build(RELEASED).hyper_modality.layers[0]
    hyper, dominant, audio, vision = torch.randn(4, 3, 2, 8).unbind(0)
    maps = layer.attention_maps(dominant, audio, vision)
    found = torch.zeros(3, 2, 8)
    for weights, to_v, source in zip(
        maps,
        (layer.to_v_audio, layer.to_v_vision),
        (layer.norm_audio(audio), layer.norm_vision(vision)),
        strict=True,
    ):
        assert weights.shape == (3, 2, 2, 2)
        values = to_v(source).view(3, 2, 2, 4)
        found += torch.einsum("bhqk,bkhc->bqhc", weights, values).reshape(3, 2, 8)
    want = layer.norm_hyper(hyper) + layer.to_out(found)
    torch.testing.assert_close(layer(hyper, dominant, audio, vision), want)
    q = layer.to_q(layer.norm_dominant(dominant)).view(3, 2, 2, 4)
    k = layer.to_k_vision(layer.norm_vision(vision)).view(3, 2, 2, 4)
    scores = torch.einsum("bqhc,bkhc->bhqk", q, k) / 2
    torch.testing.assert_close(maps[1], scores.softmax(dim=-1))


def test_the_first_query_position_of_the_fusion_reaches_nothing() -> None:
    model, batch = build(RELEASED).double(), as_double(make_batch())
    positions = model.fusion.query_positions
    before = model(batch).sentiment
    (grad,) = torch.autograd.grad(before.pow(2).sum(), positions)
    assert (grad[0, 0] == 0).all()
    assert (grad[0, 1:].abs().amax(dim=-1) > 1e-8).all()
    changes = []
    for place in (0, 1):
        with torch.no_grad():
            positions[:, place] += torch.linspace(-5, 5, positions.shape[-1])
        changes.append((model(batch).sentiment - before).abs().max().item())
    assert changes[0] == 0 and changes[1] > 1e-4


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(
    ("variant", "matters"),
    [("released", True), ("paper+padding", True), ("paper", False)],
)
def test_padding_matters_as_released_only(
    variant: str, matters: bool, modality: str
) -> None:
    model = build(replace(TINY, variant=variant)).double()
    batch = as_double(make_batch())
    mask = batch.mask(modality)
    name, other = {
        "l": ("tokens", torch.full_like(batch.tokens, 110)),
        "a": ("audio", batch.audio + 2),
        "v": ("vision", batch.vision + 2),
    }[modality]
    old = batch.sequence(modality)
    real = mask if modality == "l" else mask[..., None]
    dirty = replace(batch, **{name: torch.where(real, old, other)})
    change = (model(dirty).sentiment - model(batch).sentiment).abs()
    assert change[0] < 1e-12, "the first utterance has no padding"
    if matters:
        assert (change[1:] > 1e-6).all()
    else:
        assert change.max() < 1e-9


def test_the_proxy_is_read_from_the_generators_prefix() -> None:
    torch.manual_seed(0)
    generator = PrefixedGenerator(RELEASED)
    audio, vision = torch.randn(2, 3, 2, 8).unbind(0)
    blocks = [b.expand(3, -1, -1) for b in (generator.prefix, generator.tokens)]
    want = generator.encoder(torch.cat([*blocks, audio, vision], dim=1))
    assert want.shape == (3, 8, 8)
    torch.testing.assert_close(generator(audio, vision), want[:, :2])
    assert not torch.allclose(want[:, :2], want[:, 2:4], atol=1e-3)


@pytest.mark.parametrize("variant", ["released", "paper+generator+start", "paper"])
def test_initial_values(variant: str) -> None:
    torch.manual_seed(0)
    values = dict(build_model(replace(TINY, variant=variant)).named_parameters())
    ones = {"proxy_generator.tokens", "hyper_modality.start"}
    zeros = {f"embedding.{m}.tokens" for m in MODALITIES}
    zeros |= {"completeness_check.token", "fusion.token"}
    if variant != "paper":
        zeros.add("proxy_generator.prefix")
    positions = [v for n, v in values.items() if n.endswith("positions")]
    assert len(positions) == 3 + 1 + 1 + 3 + 1 + 2
    drawn = torch.cat([p.detach().flatten() for p in positions])
    if variant == "paper":
        for name in ones | zeros:
            assert 0 < values[name].std() < 0.05, name
        assert 0.015 < drawn.std() < 0.025
        return
    for name in ones:
        assert (values[name] == 1).all(), name
    for name in zeros:
        assert (values[name] == 0).all(), name
    assert all(0.5 < p.std() < 1.5 for p in positions)
    assert abs(drawn.mean()) < 0.15 and 0.85 < drawn.std() < 1.15


def test_the_completeness_loss_trains_language_embedding_and_text_encoder() -> None:
    model = build(RELEASED)
    loss = (model(make_batch()).completeness - 0.3).pow(2).mean()
    learners = ("completeness_check", "embedding.l", "text_encoder")
    wanted = {n for n in under(model, *learners) if "pooler" not in n}
    assert reached(loss, model) == wanted
    grads = gradients(loss, model.named_parameters())
    for side in learners:
        assert flat(grads, side).norm() > 1e-6, side


def test_only_the_released_variant_has_a_pooler_and_it_is_not_read() -> None:
    model, batch = build(RELEASED), make_batch()
    poolers = {n: p for n, p in model.named_parameters() if "pooler" in n}
    assert len(poolers) == 2
    assert not any("pooler" in name for name in build(TINY).state_dict())
    losses = lnln_losses(
        model(corrupt(batch), batch), batch.labels, torch.ones(4), LossWeights()
    )
    grads = gradients(losses.total, poolers.items())
    assert set(grads.values()) == {None}


# ------------------------------------------------------------------ lengths


def trained(config: LNLNConfig) -> TrainedModel:
    return TrainedModel(build(config).double(), PRESETS["mini"], None, {})


def test_a_shorter_batch_is_padded_to_the_models_lengths() -> None:
    model = trained(RELEASED)
    full = as_double(make_batch()).select(torch.tensor([1, 2, 3]))
    short = full.trim()
    assert short.tokens.shape[1] < RELEASED.text_length
    assert short.audio.shape[1] < RELEASED.audio_length
    assert short.vision.shape[1] < RELEASED.vision_length
    torch.testing.assert_close(model(short).sentiment, model(full).sentiment)
    unpadded = model.model(short).sentiment
    assert (unpadded - model(full).sentiment).abs().max() > 1e-4


def test_a_sweep_pads_a_shorter_batch_to_the_models_lengths() -> None:
    model = trained(RELEASED)
    full = as_double(make_batch()).select(torch.tensor([1, 2, 3]))
    rates, uniforms = fixed_rates(3, 0.5), split_uniforms(full, 0)
    want = model.predict(full, rates, uniforms)
    short = full.trim()
    drawn = replace(
        uniforms,
        **{
            m: getattr(uniforms, m)[:, : short.sequence(m).shape[1]] for m in MODALITIES
        },
    )
    found = model.predict(short, rates, drawn)
    torch.testing.assert_close(found.sentiment, want.sentiment)


@pytest.mark.parametrize("variant", ["released", "paper+adversary"])
def test_without_l_rec_the_discriminator_still_sees_the_complete_language(
    variant: str,
) -> None:
    torch.manual_seed(0)
    model = build_model(replace(TINY, variant=variant)).eval()
    complete = model.trim(make_batch())
    batch = corrupt(complete)
    rates = torch.full((len(complete), 3), 0.5)
    erased = Erased(batch, {}, 1 - rates, 1 - rates)
    found = []
    for gamma in (0.1, 0.0):
        weights = LossWeights(gamma=gamma)
        index = torch.arange(len(complete))
        item = Step(complete, erased, index, 1, 0, 1, model, weights)
        found.append(model.losses(item))
    with_rec, without = found
    assert float(with_rec["reconstruction"]) > 0 == float(without["reconstruction"])
    assert torch.equal(with_rec["adversarial"], without["adversarial"])
    alone = lnln_losses(model(batch), complete.labels, erased.nominal[:, 0], weights)
    assert not torch.allclose(alone.adversarial, without["adversarial"], rtol=1e-4)


# ------------------------------------------------------------------ variants by name


@pytest.mark.parametrize(
    "variant",
    [
        "paper",
        "released",
        *(f"paper+{choice}" for choice in RELEASED_CHOICES),
        "paper+adversary+reconstruction",
        "paper+" + "+".join(RELEASED_CHOICES),
        "released-dmc",
    ],
)
def test_a_variant_by_name_trains_a_step(variant: str) -> None:
    torch.manual_seed(0)
    model = build_model(replace(TINY, variant=variant)).train()
    choices = variant.split("+")[1:]
    for choice in RELEASED_CHOICES:
        wanted = variant.startswith("released") or choice in choices
        assert (choice in model.config.variant.released) == wanted
    complete = model.trim(make_batch())
    losses = lnln_losses(
        model(corrupt(complete), complete),
        complete.labels,
        torch.full((4,), 0.5),
        LossWeights(),
    )
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses.total.backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
    components = {n.split(".")[0] for n in before}
    moved = {
        n.split(".")[0]
        for n, p in model.named_parameters()
        if not torch.equal(p, before[n])
    }
    idle = {"proxy_generator"} if "dmc" in model.config.variant.without else set()
    assert moved == components - idle


def test_a_variant_is_a_set_of_choices() -> None:
    a, b = (
        LNLNConfig(variant=f"paper+{x}") for x in ("padding+start", "start+padding")
    )
    assert a == b and str(a.variant) == "paper+padding+start"
    without = LNLNConfig(variant="released-dmc")
    assert "dmc" in without.variant.without and "padding" in without.variant.released
    assert str(without.variant) == "released-dmc"
    assert not without.variant.fully_released
    every = LNLNConfig(variant="paper+" + "+".join(reversed(RELEASED_CHOICES)))
    assert every == LNLNConfig(variant="released")
    assert hash(every.variant) == hash(LNLNConfig(variant="released").variant)


def test_a_stored_variant_in_any_order_is_read() -> None:
    values = PRESETS["mini"].to_dict()
    assert values["model"]["variant"] == "paper"
    values["model"]["variant"] = "paper-dmml+start+padding-dmc"
    variant = Preset.from_dict(values).lnln.variant
    assert str(variant) == "paper+padding+start-dmc-dmml"


@pytest.mark.parametrize(
    "variant", ["", "original", "paper+", "paper+speed", "padding", "released-speed"]
)
def test_an_unknown_variant_is_refused_with_the_choices(variant: str) -> None:
    with pytest.raises(ValueError) as caught:
        LNLNConfig(variant=variant)
    assert repr(variant) in str(caught.value)
    for choice in RELEASED_CHOICES:
        assert choice in str(caught.value)


@pytest.mark.parametrize(("name", "depth"), [("mosi", 2), ("mosei", 4), ("sims", 4)])
def test_the_released_settings_of_a_preset(name: str, depth: int) -> None:
    preset = as_released(PRESETS[name])
    assert preset.model.fusion_depth == depth
    assert str(preset.model.variant) == "released" and preset.model.dropout == 0
    assert preset.loss == PRESETS[name].loss
    train = preset.train
    assert (train.schedule, train.masks, train.selection) == ("released",) * 3
    assert (train.clip, train.ema, train.standardize) == (0, 0, False)
    assert PRESETS[name].model.fusion_depth == 4


# ------------------------------------------------------------------ equal rows once


class Counting(nn.Module):
    """A row-wise encoder of two arguments that counts its rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maps = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        self.rows = 0

    def forward(self, x: Tensor, scale: Tensor | None) -> Tensor:
        self.rows += len(x)
        y = self.maps(x)
        return y if scale is None else y * scale[:, None]


@pytest.mark.parametrize("second_learns", [True, False])
@pytest.mark.parametrize("equal", ["none", "some", "all"])
@pytest.mark.parametrize("scaled", [True, False])
def test_equal_rows_computed_once_are_two_separate_passes(
    equal: str, second_learns: bool, scaled: bool
) -> None:
    encode = Counting()
    first = torch.randn(5, 3, dtype=torch.float64)
    same = {
        "none": torch.zeros(5, dtype=torch.bool),
        "some": torch.tensor([True, False, True, True, False]),
        "all": torch.ones(5, dtype=torch.bool),
    }[equal]
    second = torch.where(same[:, None], first, torch.randn(5, 3).double())
    scale = torch.linspace(1, 2, 5).double() if scaled else None
    weight = torch.randn(2, 5, 2, dtype=torch.float64)

    def results(pair: tuple[Tensor, Tensor]) -> list[Tensor]:
        loss = (pair[0] * weight[0]).sum() + (pair[1].pow(2) * weight[1]).sum()
        return [*pair, *torch.autograd.grad(loss, list(encode.parameters()))]

    with torch.set_grad_enabled(second_learns):
        other = encode(second, scale)
    wanted = results((encode(first, scale), other))
    encode.rows = 0
    found = results(
        encode_both(encode, (first, scale), (second, scale), same, second_learns)
    )
    assert encode.rows == 10 - int(same.sum())
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert found[1].requires_grad == second_learns


def rows_encoded(
    config: LNLNConfig, training: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, int]:
    """Texts and audio sequences computed for two equal versions of four utterances."""
    model, batch = build(config), make_batch()
    model.train(training)
    texts: list[int] = []
    original = TextEncoder._encode

    def spy(self: TextEncoder, tokens: Tensor, lengths: Tensor) -> Tensor:
        texts.append(len(tokens))
        return original(self, tokens, lengths)

    monkeypatch.setattr(TextEncoder, "_encode", spy)
    audio: list[int] = []
    model.embedding["a"].register_forward_pre_hook(
        lambda module, args: audio.append(len(args[0]))
    )
    model(batch, replace(batch, audio=batch.audio.clone()))
    return sum(texts), sum(audio)


@pytest.mark.parametrize(
    ("encoder_dropout", "dropout", "training", "rows"),
    [
        (0.0, 0.0, True, (4, 4)),
        (0.1, 0.0, True, (8, 4)),
        (0.0, 0.1, True, (4, 8)),
        (0.1, 0.1, True, (8, 8)),
        (0.1, 0.1, False, (4, 4)),
    ],
)
def test_rows_are_shared_only_without_dropout(
    encoder_dropout: float,
    dropout: float,
    training: bool,
    rows: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = replace(RELEASED.encoder, dropout=encoder_dropout)
    config = replace(RELEASED, encoder=encoder, dropout=dropout)
    assert rows_encoded(config, training, monkeypatch) == rows


def test_both_versions_drop_out_separately() -> None:
    encoder = replace(RELEASED.encoder, dropout=0.3)
    model = build(replace(RELEASED, encoder=encoder)).train()
    batch = make_batch()
    out = model(batch, batch)
    target = out.reconstructions["l"].target
    assert (target - out.embedded["l"]).abs().amax(dim=(1, 2)).min() > 1e-4


def test_a_partly_corrupted_batch_is_embedded_as_in_two_separate_passes() -> None:
    model, complete = build(RELEASED).double(), as_double(make_batch())
    rates = fixed_rates(4, 0.9).clone()
    rates[[0, 2]] = 0.0
    corrupted = erase(complete, rates, split_uniforms(complete, 0)).batch
    out = model(corrupted, complete)
    one, two = model(corrupted), model(complete)
    torch.testing.assert_close(out.sentiment, one.sentiment)
    for m in MODALITIES:
        torch.testing.assert_close(out.embedded[m], one.embedded[m])
        torch.testing.assert_close(out.reconstructions[m].target, two.embedded[m])
