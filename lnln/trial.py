"""A method trained briefly, for the book's chapters on the compared methods."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lnln.checkpoint import load_model, read_tensors
from lnln.evaluation import Row, conditions, evaluate, read_csv, reference_rows
from lnln.methods import TITLES, preset_for
from lnln.paths import data_dir
from lnln.plot import robustness_figure
from lnln.study import STORED, Study, open_data
from lnln.training import train, with_train

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Trial(Study):
    """A method that was trained for a few epochs at the size `mini`.

    Attributes:
        rows: tidy rows of its scores over missing rates, one mask seed.
        history: one entry an epoch, as in the run's record.
        state: tensors of the training besides the weights, by name, such as the
            "memory.…" of methods that generate labels.
    """

    rows: list[Row]
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
        title = TITLES[self.model.preset.model.method]
        short = f"{title}, {len(self.history)} epochs, here"
        rows = [row | {"method": short} for row in self.rows]
        if self.stored:
            wanted = (title, "LNLN", "Bayes limit", "majority floor")
            finished = read_csv(data_dir() / "compare" / "mini.csv")
            rows += [row for row in finished if row["method"] in wanted]
        else:
            rows += reference_rows(self.data, conditions(), mask_seeds=(0,))
        return robustness_figure([r for r in rows if float(r["rate"]) < 1], [metric])


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
        rows = evaluate(
            folder,
            data,
            conditions(),
            mask_seeds=(0,),
            device=device,
            progress=False,
        )
        model = load_model(folder / "model.safetensors")
        state, _ = read_tensors(folder / "state.safetensors")
    return Trial(data, model, source == STORED, rows, record["history"], state)
