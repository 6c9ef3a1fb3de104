"""LNLN, the executable book: its importable core.

Data flow one way: `simulate` or `read_mmsa` give a `Dataset`; `erase` corrupts a
`Batch`; `LNLN` predicts; `lnln_losses` scores a step; `train` writes a run;
`evaluate` sweeps it over missing rates; `robustness_figure` draws the curve.
"""

__version__ = "0.1.0"

from lnln.data.batch import (
    Batch,
    DataError,
    Dataset,
    Reading,
    SpecialTokens,
    Split,
    Standardizer,
)
from lnln.data.mmsa.reader import read_mmsa, write_mmsa
from lnln.data.opening import open_data
from lnln.data.simulated.corpus import posterior, simulate
from lnln.evaluation.limits import bayes_limit
from lnln.evaluation.linear import fit_linear
from lnln.evaluation.plots import flow_figure, robustness_figure
from lnln.evaluation.predict import Answers, predict, utterance
from lnln.evaluation.sweep import (
    conditions,
    evaluate,
    read_csv,
    reference_rows,
    write_csv,
)
from lnln.missing.erasing import (
    TEST_RATES,
    Erased,
    erase,
    fixed_rates,
    split_uniforms,
    training_rates,
)
from lnln.models import build_model
from lnln.models.blocks.encoder import EncoderConfig
from lnln.models.lnln import LNLN, LNLNConfig, lnln_losses
from lnln.models.method import LossWeights, Output
from lnln.sharing.hub import Pretrained, from_pretrained
from lnln.teaching.study import Study, open_study
from lnln.teaching.trial import Trial, try_method
from lnln.training.checkpoint import (
    CheckpointError,
    TrainedModel,
    load_model,
)
from lnln.training.loop import train
from lnln.training.presets import PRESETS
from lnln.training.scoring.metrics import evaluate_predictions, laziness, majority_floor
from lnln.training.scoring.predictions import Predictions
from lnln.training.settings import Preset, TrainConfig

__all__ = [
    "LNLN",
    "PRESETS",
    "TEST_RATES",
    "Answers",
    "Batch",
    "CheckpointError",
    "DataError",
    "Dataset",
    "EncoderConfig",
    "Erased",
    "LNLNConfig",
    "LossWeights",
    "Output",
    "Predictions",
    "Preset",
    "Pretrained",
    "Reading",
    "SpecialTokens",
    "Split",
    "Standardizer",
    "Study",
    "TrainConfig",
    "TrainedModel",
    "Trial",
    "bayes_limit",
    "build_model",
    "conditions",
    "erase",
    "evaluate_predictions",
    "evaluate",
    "fit_linear",
    "fixed_rates",
    "flow_figure",
    "from_pretrained",
    "laziness",
    "lnln_losses",
    "load_model",
    "majority_floor",
    "open_data",
    "open_study",
    "posterior",
    "predict",
    "read_csv",
    "read_mmsa",
    "reference_rows",
    "robustness_figure",
    "simulate",
    "split_uniforms",
    "train",
    "training_rates",
    "try_method",
    "utterance",
    "write_csv",
    "write_mmsa",
]
