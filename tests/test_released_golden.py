"""The released variant against numbers recorded from the released program itself.

Each file holds inputs and results; the weights follow from the tensors' names, so they
are drawn again here. `LNLN_GOLDEN` names the files (separated as in PATH).
"""

import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertConfig

from lnln.data.batch import MODALITIES, Batch
from lnln.models import build_model
from lnln.models.lnln import LNLN, lnln_losses
from lnln.models.method import Losses, Output
from lnln.paper.released import load_released, released_name
from lnln.training.presets import PRESETS, as_released

_DEFAULT = Path(__file__).parents[2] / "shared/data/released_golden_mosi.npz"
_PATHS = [p for p in os.environ.get("LNLN_GOLDEN", "").split(os.pathsep) if p]
if not _PATHS and _DEFAULT.exists():
    _PATHS = [str(_DEFAULT)]
_BERT = BertConfig(
    vocab_size=1000,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=64,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
_BY_AUDIO_WIDTH = {5: "mosi", 74: "mosei", 33: "sims"}
_RESULTS = ("sentiment_preds", "w", "effectiveness_discriminator_out")
_FEATURES = ("rec_feats", "complete_feats")
_LOSSES = {
    "loss": "total",
    "l_sp": "sentiment",
    "l_cc": "completeness",
    "l_adv": "adversarial",
    "l_rec": "reconstruction",
}


@pytest.fixture(
    scope="module",
    params=_PATHS
    or [
        pytest.param(
            "", marks=pytest.mark.skip(reason="no golden file; set LNLN_GOLDEN")
        )
    ],
    ids=lambda path: Path(path).stem,
)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    with np.load(request.param, allow_pickle=False) as file:
        return dict(file)


def dataset_of(golden: dict[str, Any]) -> str:
    if "dataset" in golden:
        return str(golden["dataset"]).lower()
    return _BY_AUDIO_WIDTH[golden["audio"].shape[-1]]


def weight(name: str, shape: torch.Size) -> Tensor:
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    values = (0.05 * generator.standard_normal(tuple(shape))).astype(np.float32)
    parent = name.split(".")[-2] if "." in name else ""
    if name.endswith(".weight") and "norm" in parent.lower():
        values += 1
    return torch.from_numpy(values)


def build(golden: dict[str, Any]) -> LNLN:
    preset = as_released(PRESETS[dataset_of(golden)])
    config = replace(
        preset.model,
        text_length=golden["ids"].shape[1],
        audio_length=golden["audio"].shape[1],
        vision_length=golden["vision"].shape[1],
        audio_width=golden["audio"].shape[2],
        vision_width=golden["vision"].shape[2],
    )
    layout = build_model(config, {**_BERT.to_dict(), "model_type": "bert"}).state_dict()
    names = {released_name(k): v.shape for k, v in layout.items()}
    state = {name: weight(name, shape) for name, shape in names.items()}
    return load_released(state, dataset_of(golden), _BERT)


def batches(golden: dict[str, Any]) -> tuple[Batch, Batch]:
    """The corrupted and the complete batch."""
    tensor = {k: torch.from_numpy(v) for k, v in golden.items() if v.dtype.kind in "fi"}
    full = {
        m: torch.full((len(golden["ids"]),), golden[k].shape[1])
        for m, k in (("a", "audio"), ("v", "vision"))
    }
    lengths, labels = tensor["mask"].sum(dim=1), tensor["label"][:, 0]

    def batch(suffix: str) -> Batch:
        return Batch(
            tensor[f"ids{suffix}"],
            lengths,
            tensor[f"audio{suffix}"],
            full["a"],
            tensor[f"vision{suffix}"],
            full["v"],
            labels,
        )

    return batch("_m"), batch("")


def step(model: LNLN, golden: dict[str, Any]) -> tuple[Output, Losses]:
    corrupted, complete = batches(golden)
    output = model(corrupted, complete)
    target = 1 - torch.from_numpy(golden["missing_rate_l"])[:, 0]
    loss = PRESETS[dataset_of(golden)].loss
    return output, lnln_losses(output, corrupted.labels, target, loss)


def results(output: Output) -> dict[str, Tensor]:
    """Our outputs under the recorded names."""
    parts = [output.reconstructions[m] for m in ("a", "v", "l")]
    logits = torch.cat([output.proxy_logits, output.language_logits])
    return {
        "sentiment_preds": output.sentiment[:, None],
        "w": output.completeness[:, None],
        "effectiveness_discriminator_out": logits.flatten(0, 1),
        "rec_feats": torch.cat([p.estimate for p in parts], dim=1),
        "complete_feats": torch.cat([p.target for p in parts], dim=1),
    }


def agree(found: Tensor, recorded: np.ndarray, what: str, tolerance: float) -> None:
    expected = torch.from_numpy(np.asarray(recorded))
    assert found.shape == expected.shape, what
    scale = expected.abs().max().clamp(min=1e-12)
    error = float((found.detach().double() - expected.double()).abs().max() / scale)
    assert error < tolerance, f"{what}: off by {error:.1e} of its scale"


def test_features(golden: dict[str, Any]) -> None:
    model = build(golden).train()
    output, _ = step(model, golden)
    found = {
        **{f"embed_{m}": output.embedded[m] for m in MODALITIES},
        "generator": output.proxy,
        "scales": torch.stack(output.dominants),
        "hyper": output.hyper,
        "fusion": output.fused,
    }
    for name, tensor in found.items():
        agree(tensor, golden[f"feat_{name}"], name, 1e-5)


def test_three_steps_of_training(golden: dict[str, Any]) -> None:
    model = build(golden).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    for number in range(3):
        output, losses = step(model, golden)
        for name, tensor in results(output).items():
            at = f"step{number}_{name}"
            agree(tensor, golden[at], at, 1e-5)
        for name, ours in _LOSSES.items():
            at = f"step{number}_{name}"
            agree(getattr(losses, ours), golden[at], at, 1e-5)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()
    with torch.no_grad():
        sentiment = model.eval()(batches(golden)[0]).sentiment
    agree(sentiment[:, None], golden["after_sentiment_preds"], "after", 1e-5)


def test_gradient_norms(golden: dict[str, Any]) -> None:
    model = build(golden).train()
    step(model, golden)[1].total.backward()
    found = {
        released_name(name): 0.0 if p.grad is None else float(p.grad.double().norm())
        for name, p in model.named_parameters()
    }
    recorded = dict(zip(golden["grad_names"], golden["grad_norms"], strict=True))
    assert found.keys() == recorded.keys()
    largest = max(recorded.values())
    for name, norm in recorded.items():
        assert found[name] == pytest.approx(norm, rel=1e-4, abs=1e-7 * largest), name
