"""The released program's checkpoints: read, written, and scored on its own inputs.

Where the program differs from the paper is listed in `lnln.models.released`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from lnln.data.batch import MODALITIES, Dataset
from lnln.data.errors import SettingsError
from lnln.missing.erasing import TEST_RATES, released_uniforms
from lnln.models import build_model
from lnln.models.lnln import LNLN, LNLNConfig
from lnln.training.checkpoint import CheckpointError, TrainedModel, keeping_random_state
from lnln.training.devices import resolve_device
from lnln.training.presets import PRESETS, RELEASED_FUSION_DEPTH, as_released

if TYPE_CHECKING:
    from transformers import BertConfig

#: Self-attention encoders, ours -> released.
_ENCODERS = {
    "embedding.l.encoder": "proj_l.1",
    "embedding.a.encoder": "proj_a.1",
    "embedding.v.encoder": "proj_v.1",
    "proxy_generator.encoder": "proxy_dominate_modality_generator",
    "completeness_check.encoder": "completeness_check.0",
    "reconstructor.a": "reconstructor.0",
    "reconstructor.v": "reconstructor.1",
    "reconstructor.l": "reconstructor.2",
    "dominant_scales.encoder": "dmml.0",
}
#: What holds layers.
_STACKS = {
    **{ours: f"{theirs}.encoder" for ours, theirs in _ENCODERS.items()},
    "hyper_modality": "dmml.1",
    "fusion": "dmml.2.CrossTransformerEncoder",
}
#: Everything else, by its whole name or up to ".weight" and ".bias".
_OTHERS = {
    **{
        f"{ours}.positions": f"{theirs}.pos_embedding"
        for ours, theirs in _ENCODERS.items()
    },
    **{f"embedding.{m}.project": f"proj_{m}.0" for m in MODALITIES},
    **{f"embedding.{m}.tokens": f"proj_{m}.1.extra_token" for m in MODALITIES},
    "proxy_generator.tokens": "h_p",
    "proxy_generator.prefix": "proxy_dominate_modality_generator.extra_token",
    "completeness_check.token": "completeness_check.0.extra_token",
    "completeness_check.head.0": "completeness_check.1.0",
    "completeness_check.head.2": "completeness_check.1.2",
    "discriminator.classify.0": "effective_discriminator.0",
    "discriminator.classify.2": "effective_discriminator.2",
    "hyper_modality.start": "h_hyper",
    "fusion.token": "dmml.2.extra_token",
    "fusion.query_positions": "dmml.2.pos_embedding_t",
    "fusion.memory_positions": "dmml.2.pos_embedding_s",
    "predictor.head": "dmml.3",
}
_IN_LAYER = {
    "norm_q": "0.norm_q",
    "norm_k": "0.norm_k",
    "norm_v": "0.norm_v",
    "attention.to_q": "0.fn.to_q",
    "attention.to_k": "0.fn.to_k",
    "attention.to_v": "0.fn.to_v",
    "attention.to_out": "0.fn.to_out.0",
    "norm_ffn": "1.norm",
    "ffn.0": "1.fn.net.0",
    "ffn.2": "1.fn.net.3",
    "norm_dominant": "0.norm1",
    "norm_audio": "0.norm2",
    "norm_vision": "0.norm3",
    "norm_hyper": "0.norm4",
    "to_q": "0.fn.to_q",
    "to_k_audio": "0.fn.to_k_ta",
    "to_k_vision": "0.fn.to_k_tv",
    "to_v_audio": "0.fn.to_v_ta",
    "to_v_vision": "0.fn.to_v_tv",
    "to_out": "0.fn.to_out.0",
}
_BERT, _RELEASED_BERT = "text_encoder.bert.", "bertmodel.model."


def released_name(name: str) -> str:
    """The released name of a parameter of ours (variant "released").

    Raises:
        KeyError: there is none.
    """
    if name.startswith(_BERT):
        return _RELEASED_BERT + name.removeprefix(_BERT)
    if name in _OTHERS:
        return _OTHERS[name]
    module, _, kind = name.rpartition(".")
    if module in _OTHERS:
        return f"{_OTHERS[module]}.{kind}"
    stack, _, inside = module.partition(".layers.")
    index, _, part = inside.partition(".")
    return f"{_STACKS[stack]}.layers.{index}.{_IN_LAYER[part]}.{kind}"


def to_released(model: LNLN) -> dict[str, Tensor]:
    """The state dict of a model of variant "released" under the released names.

    Raises:
        SettingsError: the model is of another variant.
    """
    if not model.config.variant.fully_released:
        raise SettingsError(
            f"a model of variant {str(model.config.variant)!r} has no released form; "
            "build it with LNLNConfig(variant='released')"
        )
    return {released_name(k): v.detach() for k, v in model.state_dict().items()}


def load_released(
    source: Path | str | Mapping[str, Any],
    dataset: str,
    bert_config: BertConfig | dict[str, Any] | None = None,
) -> LNLN:
    """Build a model of variant "released" from a checkpoint of the released program.

    All sizes are taken from the tensors. Files are read with `weights_only=True`:
    nothing in them is executed.

    Args:
        source: a file, or its contents: `{"epoch", "state_dict", "optimizer"}` or the
            state dict alone, with or without BERT's `position_ids`.
        dataset: "mosi", "mosei" or "sims", whose settings the program was run with.
        bert_config: configuration of the BERT inside; by default that of BERT base
            with the sizes of the tensors and heads of 64.

    Returns:
        The model, in evaluation mode.

    Raises:
        CheckpointError: the file cannot be read, is of another data set, or tensors
            are missing, unexpected or of the wrong shape; all are named, unless one is
            missing that a size is read from.
    """
    if dataset not in RELEASED_FUSION_DEPTH:
        known = sorted(RELEASED_FUSION_DEPTH)
        raise SettingsError(f"dataset {dataset!r} is unknown; choose from {known}")
    where, state = _read(source)
    _check_dataset(where, state, dataset)
    architecture = _architecture(where, state, bert_config)
    config = _config(where, state, dataset)
    with keeping_random_state():
        model = cast(LNLN, build_model(config, architecture))
    expected = {released_name(k): (k, v.shape) for k, v in model.state_dict().items()}
    faults = [f"missing: {name}" for name in sorted(expected.keys() - state.keys())]
    faults += [f"unexpected: {name}" for name in sorted(state.keys() - expected.keys())]
    faults += [
        f"shape of {name}: {tuple(state[name].shape)}, expected {tuple(shape)}"
        for name, (_, shape) in expected.items()
        if name in state and state[name].shape != shape
    ]
    if faults:
        raise CheckpointError(
            f"{where} is not a released {dataset} checkpoint:\n  " + "\n  ".join(faults)
        )
    model.load_state_dict({ours: state[k] for k, (ours, _) in expected.items()})
    return model.eval()


def evaluate_released(
    source: Path | str | Mapping[str, Any],
    dataset: Dataset,
    rates: Sequence[float] = TEST_RATES,
    split: str = "test",
    device: torch.device | str = "auto",
    bert_config: BertConfig | dict[str, Any] | None = None,
) -> dict[float, dict[str, float]]:
    """Score a released checkpoint on the inputs that the released program corrupts.

    Args:
        source: as in `load_released`.
        dataset: read from the MMSA file that the checkpoint was trained on, as it is.
        rates: missing rates.
        split: which split.
        device: where to run; see `resolve_device`.
        bert_config: as in `load_released`.

    Returns:
        {rate: {metric: score}}.

    Raises:
        CheckpointError: as in `load_released`.
        SettingsError: this machine has no such device.
    """
    where = resolve_device(device)
    model = load_released(source, dataset.name, bert_config)
    trained = TrainedModel(model.to(where), PRESETS[dataset.name], None, {})
    batch = dataset.splits[split].batch
    uniforms = released_uniforms(batch)
    corruptions = [
        (torch.full((len(batch), 3), rate, dtype=torch.float64), uniforms)
        for rate in rates
    ]
    return {
        rate: p.scores(batch.labels, dataset.scheme)
        for rate, p in zip(rates, trained.sweep(batch, corruptions), strict=True)
    }


def _read(source: Path | str | Mapping[str, Any]) -> tuple[str, dict[str, Tensor]]:
    where, content = "the given state dict", source
    if isinstance(source, str | Path):
        where = str(source)
        try:
            content = torch.load(source, map_location="cpu", weights_only=True)
        # What torch raises for a file of another kind depends on its first bytes.
        except Exception as error:
            raise CheckpointError(
                f"{where}: cannot be read as a checkpoint ({error}); "
                "nothing in it was executed"
            ) from error
    assert not isinstance(content, str | Path)
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()
    ):
        raise CheckpointError(f"{where}: holds no state dict of named tensors")
    ignored = f"{_RELEASED_BERT}embeddings.position_ids"
    return where, {k: v for k, v in content.items() if k != ignored}


def _check_dataset(where: str, state: dict[str, Tensor], dataset: str) -> None:
    widths = tuple(_size(where, state, f"proj_{m}.0.weight", 1) for m in ("a", "v"))
    for name in RELEASED_FUSION_DEPTH:
        model = PRESETS[name].model
        if widths == (model.audio_width, model.vision_width) and name != dataset:
            raise CheckpointError(
                f"{where} is a checkpoint of {name} (audio and vision {widths} wide), "
                f"not of {dataset}"
            )


def _size(where: str, state: dict[str, Tensor], name: str, axis: int) -> int:
    if name not in state or state[name].dim() <= axis:
        raise CheckpointError(
            f"{where} is not a released checkpoint:\n  missing: {name}"
        )
    return state[name].shape[axis]


def _depth(state: dict[str, Tensor], stack: str) -> int:
    pattern = re.compile(re.escape(stack) + r"\.(\d+)\.")
    layers = [int(m[1]) for name in state if (m := pattern.match(name))]
    return 1 + max(layers, default=-1)


def _architecture(
    where: str,
    state: dict[str, Tensor],
    bert_config: BertConfig | dict[str, Any] | None,
) -> dict[str, Any]:
    if bert_config is not None:
        given = bert_config if isinstance(bert_config, dict) else bert_config.to_dict()
        return {**given, "model_type": "bert"}
    words = f"{_RELEASED_BERT}embeddings.word_embeddings.weight"
    width = _size(where, state, words, 1)
    first = f"{_RELEASED_BERT}encoder.layer.0.intermediate.dense.weight"
    places = f"{_RELEASED_BERT}embeddings.position_embeddings.weight"
    return {
        "model_type": "bert",
        "vocab_size": _size(where, state, words, 0),
        "hidden_size": width,
        "num_hidden_layers": _depth(state, f"{_RELEASED_BERT}encoder.layer"),
        "num_attention_heads": max(1, width // 64),
        "intermediate_size": _size(where, state, first, 0),
        "max_position_embeddings": _size(where, state, places, 0),
    }


def _config(where: str, state: dict[str, Tensor], dataset: str) -> LNLNConfig:
    tokens, width = (_size(where, state, "h_p", axis) for axis in (1, 2))
    lengths = {
        m: _size(where, state, f"proj_{m}.1.pos_embedding", 1) - tokens
        for m in MODALITIES
    }
    return replace(
        as_released(PRESETS[dataset]).lnln,
        text_length=lengths["l"],
        audio_length=lengths["a"],
        vision_length=lengths["v"],
        audio_width=_size(where, state, "proj_a.0.weight", 1),
        vision_width=_size(where, state, "proj_v.0.weight", 1),
        tokens=tokens,
        width=width,
    )
