"""Train and score methods with several seeds: on this machine, or on a cluster.

A cell of the grid is a method and a training seed. Its folder holds the run, its scores
(`robustness.csv`) and its predictions (`predictions.safetensors`); under another
corruption than the paper's both have its name, too. A finished cell is never done
again; a killed one goes on where it was, on whichever machine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lnln import evaluation as ev
from lnln.checkpoint import Predictions, write_tensors
from lnln.config import Preset
from lnln.corruption import file_under
from lnln.data import DataError, Dataset, Reading
from lnln.device import resolve_device
from lnln.errors import MissingPackageError
from lnln.missing import TEST_RATES
from lnln.study import open_data
from lnln.training import train, with_train

# Seeds are set per process, so two cells must not run in threads of one.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Source:
    """Where the data come from, so that every machine can open them itself.

    Attributes:
        spec, preset, train_size, seed, reading: see `study.open_data`.
        sha256: what they must hash to; empty for anything.
    """

    spec: str
    preset: str = "mini"
    train_size: int | None = None
    seed: int = 0
    sha256: str = ""
    reading: Reading = Reading()


@lru_cache(maxsize=1)
def open_source(source: Source) -> Dataset:
    """Open the data, once a process.

    Raises:
        DataError: they are not the expected ones.
    """
    data = open_data(
        source.spec, source.preset, source.train_size, source.seed, source.reading
    )
    if source.sha256 and data.sha256 != source.sha256:
        raise DataError(
            f"{source.spec}: SHA-256 of the content is {data.sha256}, not "
            f"{source.sha256}; give every machine the same file"
        )
    return data


@dataclass(frozen=True)
class Cell:
    """One method with one seed, and all it takes to do it.

    Attributes:
        preset: settings, the seed among them.
        source: of the data.
        folder: gets the run, its scores and predictions; on a cluster, all machines
            see it.
        mask_seeds: corruptions a condition.
        subsets: also all subsets of modalities, as in Tables 11 to 14.
        corruption: a key of `CORRUPTIONS`, under which it is scored.
        device: where it is trained and scored, as the machine that does it names it;
            see `resolve_device`.
    """

    preset: Preset
    source: Source
    folder: Path
    mask_seeds: tuple[int, ...] = (0, 1, 2)
    subsets: bool = False
    corruption: str = "random"
    device: str = "auto"

    @property
    def scores(self) -> Path:
        """The file of its scores."""
        return self.folder / file_under(self.corruption, "robustness.csv")

    @property
    def finished(self) -> bool:
        """Whether it is scored under all that is asked for."""
        if not self.scores.exists():
            return False
        rows = ev.read_csv(self.scores)
        masks = {row["mask_seed"] for row in rows} - {""}  # the references have none
        # The whole-modality test has rows in which language alone is there.
        subsets = any(row["available"] == "l" for row in rows)
        return masks == set(map(str, self.mask_seeds)) and subsets >= self.subsets


def run_cell(cell: Cell, progress: bool = False) -> Path:
    """Train and score one cell, or what is left to do of it.

    Args:
        cell: which.
        progress: show a bar of the training.

    Returns:
        Its folder.

    Raises:
        CheckpointError: the folder holds a run with other settings or data.
        SettingsError: this machine has no such device.
    """
    resolve_device(cell.device)  # before the data are read, which can take long
    with _ONE_AT_A_TIME:
        dataset = open_source(cell.source)
        train(
            cell.preset,
            dataset,
            cell.folder,
            resume=True,
            device=cell.device,
            progress=progress,
        )
        if not cell.finished:
            _score(cell, dataset)
    return cell.folder


def _score(cell: Cell, dataset: Dataset) -> None:
    predicted: list[Tensor] = []
    # What a model was trained without it is tested without, too (Table 6).
    own = cell.preset.train.modalities

    def keep(condition: ev.Condition, predictions: Sequence[Predictions]) -> None:
        if condition[0] == own and condition[1] in TEST_RATES:
            predicted.extend(p.sentiment for p in predictions)

    wanted = ev.conditions(TEST_RATES, cell.subsets, own)
    seeds = cell.mask_seeds
    kind = cell.corruption
    rows = ev.evaluate(
        cell.folder,
        dataset,
        wanted,
        mask_seeds=seeds,
        device=cell.device,
        progress=False,
        watch=keep,
        corruption=kind,
    )
    rows += ev.reference_rows(dataset, wanted, mask_seeds=seeds, corruption=kind)
    labels = dataset.test.batch.labels
    tensors = {"sentiment": torch.stack(predicted), "labels": labels}
    kept = cell.folder / file_under(kind, "predictions.safetensors")
    write_tensors(kept, tensors, {})
    ev.write_csv(cell.scores, rows)


def cells_of(
    presets: dict[str, Preset],
    source: Source,
    folder: Path,
    seeds: Sequence[int],
    *,
    mask_seeds: Sequence[int] = (0, 1, 2),
    subsets: bool = False,
    corruption: str = "random",
    device: str = "auto",
) -> list[Cell]:
    """The cells of a grid, one seed after the other.

    Args:
        presets: {name of the runs, such as a method's: settings}; the seed in them is
            replaced.
        source: of the data, which are trained on and scored on their test split.
        folder: of the grid; the cells are its sub-folders.
        seeds: training seeds.
        mask_seeds, subsets, corruption, device: see `Cell`.
    """
    return [
        Cell(
            with_train(presets[method], seed=seed),
            source,
            folder.absolute() / f"{method}-{seed}",
            tuple(dict.fromkeys(mask_seeds)),
            subsets,
            corruption,
            device,
        )
        for seed in dict.fromkeys(seeds)
        for method in presets
    ]


def run_grid(
    cells: Sequence[Cell], *, progress: bool = True, cluster: str | None = None
) -> list[Path]:
    """Train and score all cells.

    Args:
        cells: from `cells_of`.
        progress: show a bar with a forecast, and one for each training on this machine.
        cluster: address of a dask.distributed scheduler whose workers run the cells;
            None runs one after the other here.

    Returns:
        The folders of the cells.

    Raises:
        CheckpointError: a cell holds a run with other settings or data.
        MissingPackageError: a cluster needs the extra `lnln[scale]`.
    """
    open_cells = [cell for cell in cells if not cell.finished]
    # What is finished is checked here: it must be the run that is asked for.
    for cell in cells:
        if cell.finished:
            run_cell(cell)
    here = (run_cell(cell, progress) for cell in open_cells)
    done = here if cluster is None else _spread(open_cells, cluster)
    bar = tqdm(total=len(cells), desc="grid", unit="run", disable=not progress)
    bar.update(len(cells) - len(open_cells))
    for _ in done:
        bar.update()
    bar.close()
    return [cell.folder for cell in cells]


def _spread(cells: Sequence[Cell], address: str) -> Iterator[Path]:
    """Run cells on the workers of a scheduler; yields folders as they finish.

    A cell whose worker dies is given to another one, which goes on from its last epoch.
    """
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            'a cluster needs dask.distributed: pip install "lnln[scale]"'
        ) from error
    with Client(address) as client:
        futures = [
            client.submit(run_cell, cell, key=str(cell.folder), pure=False)
            for cell in cells
        ]
        for future in as_completed(futures):
            yield future.result()
