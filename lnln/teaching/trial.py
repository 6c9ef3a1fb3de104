"""A method trained briefly, for the book's chapters on the compared methods."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from lnln.data.files import data_dir
from lnln.data.opening import open_data
from lnln.evaluation.plots import robustness_figure
from lnln.evaluation.sweep import conditions, evaluate, read_csv, reference_rows
from lnln.models import title_of
from lnln.teaching.study import STORED, Study
from lnln.training.checkpoint import load_model, read_tensors
from lnln.training.loop import train
from lnln.training.presets import preset_for
from lnln.training.settings import with_train

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Trial(Study):
    """A method that was trained for a few epochs at the size `mini`.

    Attributes:
        scores: over missing rates, in tidy form, one mask seed.
        history: one entry per epoch, as in the run's record.
        state: tensors of the training besides the weights, by name, such as the
            "memory.…" of methods that generate labels.
    """

    scores: pd.DataFrame
    history: list[dict[str, Any]]
    state: dict[str, Tensor]

    def curves(self, metric: str = "mae") -> Figure:
        """The trial on the robustness plot, beside finished runs where there are some.

        Args:
            metric: what is drawn over the missing rate.

        Returns:
            A figure. On the book's own data it also has the stored scores of the
            finished method and of LNLN (bands span three training seeds), the Bayes
            limit and the majority floor; on other data the floor alone.
        """
        title = title_of(self.model.preset.model.method)
        short = f"{title}, {len(self.history)} epochs, here"
        scores = self.scores.assign(method=short)
        if self.stored:
            wanted = (title, "LNLN", "Bayes limit", "majority floor")
            others = read_csv(data_dir() / "compare" / "mini.csv")
            others = others[others["method"].isin(wanted)]
        else:
            others = reference_rows(self.data, conditions(), mask_seeds=(0,))
        scores = pd.concat([scores, others])
        return robustness_figure(scores[scores["rate"] < 1], [metric])


def try_method(
    method: str, source: str, epochs: int, seed: int, device: str = "cpu"
) -> Trial:
    """Train a method for a few epochs with its `mini` settings, and score it.

    Args:
        method: "misa", "self_mm", … as for `lnln train --method`.
        source: "simulated:mini", "simulated:full" or the path of an MMSA file.
        epochs: so many; the learning rate runs as if there were no more.
        seed: of weights, order and corruption.
        device: where it is trained and scored; see `resolve_device`.

    Returns:
        `Trial`, its model on the CPU to be looked into; the run's folder is deleted.

    Raises:
        DataError: the file is missing or faulty.
        SettingsError: an unknown method or device.
    """
    data = open_data(source)
    preset = with_train(preset_for(method, "mini"), epochs=epochs, seed=seed)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        record = train(preset, data, folder, device=device, progress=False)
        scores = evaluate(
            folder,
            data,
            conditions(),
            mask_seeds=(0,),
            device=device,
            progress=False,
        )
        model = load_model(folder / "model.safetensors")
        state, _ = read_tensors(folder / "state.safetensors")
    return Trial(data, model, source == STORED, scores, record["history"], state)
