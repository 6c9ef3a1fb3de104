"""LNLN, the executable book: its importable core.

Data flow one way: `simulate` or `read_mmsa` give a `Dataset`; `erase` corrupts a
`Batch`; `LNLN` predicts; `lnln_losses` scores a step; `train` writes a run;
`evaluate` sweeps it over missing rates; `robustness_figure` draws the curve.
"""

__version__ = "0.1.0"

from lnln.bayes import bayes_limit
from lnln.checkpoint import (
    CheckpointError,
    Predictions,
    TrainedModel,
    load_model,
    load_pretrained,
)
from lnln.config import (
    PRESETS,
    EncoderConfig,
    LNLNConfig,
    LossWeights,
    Preset,
    TrainConfig,
)
from lnln.corpus import posterior, simulate
from lnln.data import (
    Batch,
    DataError,
    Dataset,
    Reading,
    SpecialTokens,
    Split,
    Standardizer,
)
from lnln.evaluation import conditions, evaluate, read_csv, reference_rows, write_csv
from lnln.linear import fit_linear
from lnln.losses import lnln_losses
from lnln.metrics import evaluate_predictions, laziness, majority_floor
from lnln.missing import (
    TEST_RATES,
    Erased,
    erase,
    fixed_rates,
    split_uniforms,
    training_rates,
)
from lnln.mmsa import read_mmsa, write_mmsa
from lnln.model import LNLN
from lnln.output import Output
from lnln.plot import flow_figure, robustness_figure
from lnln.study import Study, open_data, open_study
from lnln.training import train
from lnln.trial import Trial, try_method

__all__ = [
    "LNLN",
    "PRESETS",
    "TEST_RATES",
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
    "Reading",
    "SpecialTokens",
    "Split",
    "Standardizer",
    "Study",
    "TrainConfig",
    "TrainedModel",
    "Trial",
    "bayes_limit",
    "conditions",
    "erase",
    "evaluate_predictions",
    "evaluate",
    "fit_linear",
    "fixed_rates",
    "flow_figure",
    "laziness",
    "lnln_losses",
    "load_model",
    "load_pretrained",
    "majority_floor",
    "open_data",
    "open_study",
    "posterior",
    "read_csv",
    "read_mmsa",
    "reference_rows",
    "robustness_figure",
    "simulate",
    "split_uniforms",
    "train",
    "training_rates",
    "try_method",
    "write_csv",
    "write_mmsa",
]
