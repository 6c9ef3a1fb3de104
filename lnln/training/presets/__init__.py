"""Named, complete settings: the paper's Table 1, and those of the compared methods.

At `mini` the sizes of the networks are here, and what a search found is in `found`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lnln.models import method_class
from lnln.models.blocks.encoder import EncoderConfig
from lnln.models.lnln import LNLNConfig
from lnln.models.method import LossWeights, ModelConfig, Variant
from lnln.training.presets.found import FOUND
from lnln.training.settings import Preset, TrainConfig, with_settings

#: Layers of the released fusion Transformer (item 1), by preset.
RELEASED_FUSION_DEPTH = {"mosi": 2, "mosei": 4, "sims": 4}


def as_released(preset: Preset) -> Preset:
    """The preset with network, training and selection of the released program.

    Args:
        preset: "mosi", "mosei", "sims", or any other, which keeps its fusion depth.
    """
    config = preset.lnln
    depth = RELEASED_FUSION_DEPTH.get(preset.name, config.fusion_depth)
    model = replace(
        config, variant=Variant.parse("released"), fusion_depth=depth, dropout=0.0
    )
    train = replace(
        preset.train,
        schedule="released",
        masks="released",
        selection="released",
        clip=0.0,
        patience=preset.train.epochs,
        ema=0.0,
        standardize=False,
    )
    return replace(preset, model=model, train=train)


def _bert(name: str) -> EncoderConfig:
    return EncoderConfig(name=name)


# Simulated corpus, laptop: everything four times narrower than in the paper. Trained as
# here is what no search has seen, such as a method of one's own.
_MINI = Preset(
    "mini",
    LNLNConfig(
        text_length=26,
        audio_length=48,
        vision_length=48,
        width=32,
        heads=2,
        head_width=16,
        ffn_width=64,
        fusion_depth=2,
        hyper_heads=2,
        dropout=0.2,
        encoder=EncoderConfig(
            vocab_size=272, width=32, depth=1, heads=2, ffn_width=64, dropout=0.2
        ),
    ),
    LossWeights(),
    TrainConfig(epochs=40, learning_rate=3e-3, weight_decay=1.0, patience=40, ema=0.99),
)

PRESETS = {
    "mini": with_settings(_MINI, FOUND["lnln"]),
    "mosi": Preset(
        "mosi",
        LNLNConfig(encoder=_bert("bert-base-uncased")),
        LossWeights(),
        TrainConfig(),
    ),
    "mosei": Preset(
        "mosei",
        LNLNConfig(
            audio_length=500,
            audio_width=74,
            vision_width=35,
            encoder=_bert("bert-base-uncased"),
        ),
        LossWeights(),
        TrainConfig(),
    ),
    "sims": Preset(
        "sims",
        LNLNConfig(
            text_length=39,
            audio_length=400,
            vision_length=55,
            audio_width=33,
            vision_width=709,
            encoder=_bert("bert-base-chinese"),
        ),
        LossWeights(beta=0.6),
        TrainConfig(),
    ),
}

#: Fields of the configuration and of the training that differ from MOSI's, by data set.
Changes = dict[str, tuple[dict[str, Any], dict[str, Any]]]
#: What methods with the released program's schedule have at `mini` instead.
_SHORT: dict[str, Any] = {"schedule": "steps", "clip": 1.0}
#: Each compared method's training on MOSI, and what differs on other data.
_COMPARED: dict[str, tuple[TrainConfig, Changes]] = {
    "misa": (
        TrainConfig(
            batch_size=16,
            learning_rate=1e-4,
            weight_decay=0.0,
            schedule="constant",
            clip=0.0,
            patience=8,
        ),
        {
            "mosei": (
                {"dropout": 0.5, "difference": 0.3, "similarity": 0.8},
                {"batch_size": 64},
            ),
            "sims": (
                {"dropout": 0.0, "difference": 0.3, "similarity": 1.0}
                | {"reconstruction": 0.8, "clip_value": 1.0},
                {"batch_size": 64},
            ),
            "mini": ({"width": 32, "ffn_width": 64}, {}),
        },
    ),
    "self_mm": (
        TrainConfig(
            batch_size=16,
            learning_rate=1e-3,
            weight_decay=1e-3,
            schedule="constant",
            clip=0.0,
            patience=8,
        ),
        {
            "mosei": (
                {"dropouts": (0.1, 0.0, 0.0, 0.0), "rates": (0.05, 5.0, 0.1)}
                | {"decays": (1e-3, 0.0, 0.0)},
                {"batch_size": 32, "weight_decay": 1e-2},
            ),
            "sims": (
                {"states": (16, 64), "heads": (128, 64, 16, 32), "limit": 1.0}
                | {"decays": (1e-3, 1e-2, 1e-2)},
                {"batch_size": 32},
            ),
            "mini": ({"rates": (1.0, 1.0, 1.0), "accumulate": 1}, {}),
        },
    ),
    "mmim": (
        TrainConfig(
            batch_size=32,
            learning_rate=1e-3,
            weight_decay=1e-4,
            schedule="constant",
            clip=0.0,
            patience=8,
        ),
        {
            "mosei": ({"first_share": 0.5}, {}),
            "mini": ({"encoder_rate": 1.0}, {}),
        },
    ),
    "cenet": (
        TrainConfig(
            batch_size=64,
            learning_rate=1e-5,
            weight_decay=1e-4,
            schedule="constant",
            clip=0.0,
            patience=8,
        ),
        {
            "mosei": ({"epsilon": 1e-8}, {}),
            "sims": (
                {"epsilon": 2e-8},
                {"batch_size": 32, "learning_rate": 2e-6, "weight_decay": 0.0},
            ),
            "mini": ({"freeze_embeddings": False}, {}),
        },
    ),
    "tetfn": (
        TrainConfig(
            batch_size=64,
            learning_rate=3e-4,
            weight_decay=1e-2,
            schedule="constant",
            clip=0.0,
            patience=8,
        ),
        {
            "mosei": (
                {"states": (32, 32), "hidden_dropout": 0.1, "embedding_dropout": 0.1}
                | {"update_dropout": 0.0, "heads": (64, 64, 32, 16)}
                | {"dropouts": (0.0, 0.1, 0.0, 0.1), "rates": (0.3, 10.0, 50.0)}
                | {"decays": (1e-3, 0.0, 1e-3)},
                {"batch_size": 32, "learning_rate": 1e-4},
            ),
            "sims": (
                {"kernels": (3, 5), "attention_dropouts": (0.0, 0.1, 0.0)}
                | {"hidden_dropout": 0.1, "update_dropout": 0.0}
                | {"heads": (64, 64, 16, 32), "dropouts": (0.1, 0.0, 0.0, 0.0)}
                | {"rates": (0.01, 1.0, 1 / 6), "decays": (1e-3, 0.0, 1e-2)},
                {"learning_rate": 3e-3, "weight_decay": 1e-3},
            ),
            "mini": (
                {"width": 20, "rates": (1.0, 1.0, 1.0), "decays": (1e-3, 1e-3, 1e-3)}
                | {"accumulate": 1},
                {},
            ),
        },
    ),
    "tfr_net": (
        TrainConfig(
            batch_size=24,
            learning_rate=1e-3,
            weight_decay=1e-3,
            schedule="constant",
            clip=0.0,
            patience=6,
        ),
        {
            "mosei": (
                {"reconstruction": (5e-6, 2e-6, 2e-5), "encoder_rate": 0.005},
                {"learning_rate": 2e-3},
            ),
            "sims": (
                {"reconstruction": (1.0, 0.01, 0.0001), "encoder_rate": 0.005}
                | {"cross_layers": 2, "hidden_dropout": 0.0, "embedding_dropout": 0.1}
                | {"classifier_dropout": 0.1},
                {"batch_size": 16, "learning_rate": 2e-3},
            ),
            "mini": (
                {"width": 12, "cross_layers": 1, "self_layers": 1, "temporal_layers": 1}
                | {"states": (12, 8, 12), "classifier": 32, "encoder_rate": 1.0},
                {},
            ),
        },
    ),
    "almt": (
        TrainConfig(
            learning_rate=1e-4,
            weight_decay=1e-4,
            schedule="released",
            clip=0.0,
            patience=32,
        ),
        {
            "mosei": ({"fusion_depth": 4}, {}),
            "sims": ({"fusion_depth": 4}, {}),
            "mini": (
                {"width": 32, "heads": 2, "head_width": 16, "ffn_width": 64}
                | {"hyper_heads": 2},
                _SHORT,
            ),
        },
    ),
    "p_rmf": (
        TrainConfig(
            epochs=100,
            batch_size=32,
            learning_rate=1e-4,
            weight_decay=1e-4,
            schedule="released",
            clip=0.0,
            patience=100,
        ),
        {
            "sims": ({"prefix": 39}, {}),
            # An encoder without training needs the full rate.
            "mini": (
                {"width": 32, "heads": 2, "head_width": 16, "ffn_width": 64}
                | {"slow_share": 1.0},
                _SHORT,
            ),
        },
    ),
    "tf_mamba": (
        TrainConfig(
            learning_rate=1e-4,
            weight_decay=1e-4,
            schedule="released",
            clip=0.0,
            patience=200,
        ),
        {
            "mosei": (
                {"states": 16, "query_blocks": 2, "reconstruction": 0.3}
                | {"dropout": 0.2},
                {},
            ),
            "sims": (
                {"expansion": 2, "states": 16, "query_blocks": 2}
                | {"reconstruction": 1.0, "dropout": 0.2},
                {},
            ),
            "mini": (
                {"width": 32, "expansion": 2, "states": 8}
                | {"heads": 2, "head_width": 16},
                _SHORT,
            ),
        },
    ),
}


def preset_for(method: str, name: str) -> Preset:
    """The settings of a method for a data set.

    Args:
        method: a key of `TITLES`, or "module:Class" for one of your own, which gets its
            configuration's defaults and LNLN's training; at "mini" one that no search
            found.
        name: "mini", "mosi", "mosei" or "sims".

    Raises:
        SettingsError: an unknown method, or one that lacks something.
    """
    if method == LNLNConfig.method:
        return PRESETS[name]
    base = _MINI if name == "mini" else PRESETS[name]
    train, changes = _COMPARED.get(method, (base.train, {}))
    own, training = changes.get(name, ({}, {}))
    sizes = {
        field: getattr(base.model, field)
        for field in ModelConfig.__dataclass_fields__
        if field != "method"
    }
    model = method_class(method).config_type(**(sizes | own))
    preset = Preset(f"{name}-{method}", model, base.loss, replace(train, **training))
    return with_settings(preset, FOUND.get(method, {}) if name == "mini" else {})
