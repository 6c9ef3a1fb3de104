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
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lnln.data.batch import Dataset
from lnln.data.errors import MissingPackageError
from lnln.data.opening import Source, open_source
from lnln.evaluation import sweep as ev
from lnln.missing.corruption import file_under
from lnln.missing.erasing import TEST_RATES
from lnln.models import method_class, sources_of
from lnln.training.checkpoint import write_tensors
from lnln.training.devices import resolve_device
from lnln.training.loop import train
from lnln.training.scoring.predictions import Predictions
from lnln.training.settings import Preset, with_train

# Seeds are set per process, so two cells must not run in threads of one.
_ONE_AT_A_TIME = threading.Lock()


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
        scores = ev.read_csv(self.scores)
        masks = set(scores["mask_seed"]) - {""}  # the references have none
        # In the whole-modality test language is there alone, too.
        subsets = "l" in set(scores["available"])
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
            predicted.extend(p.read("mae", dataset.scheme) for p in predictions)

    wanted = ev.conditions(TEST_RATES, cell.subsets, own)
    seeds = cell.mask_seeds
    kind = cell.corruption
    own_scores = ev.evaluate(
        cell.folder,
        dataset,
        wanted,
        mask_seeds=seeds,
        device=cell.device,
        progress=False,
        watch=keep,
        corruption=kind,
    )
    references = ev.reference_rows(dataset, wanted, mask_seeds=seeds, corruption=kind)
    labels = dataset.test.batch.labels
    tensors = {"sentiment": torch.stack(predicted), "labels": labels}
    kept = cell.folder / file_under(kind, "predictions.safetensors")
    write_tensors(kept, tensors, {})
    ev.write_csv(cell.scores, pd.concat([own_scores, references]))


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
    cells: Sequence[Cell],
    *,
    progress: bool = True,
    cluster: str | None = None,
    jobs: int = 1,
) -> list[Path]:
    """Train and score all cells.

    Args:
        cells: from `cells_of`.
        progress: show a bar with a forecast, and one for each training on this machine.
        cluster: address of a dask.distributed scheduler whose workers run the cells;
            None runs them here.
        jobs: how many run here at a time, each in a process of its own on one thread;
            1 runs one after the other in this process, on all threads.

    Returns:
        The folders of the cells.

    Raises:
        CheckpointError: a cell holds a run with other settings or data.
        MissingPackageError: a cluster, or more than one job, needs the extra
            `lnln[scale]`.
    """
    open_cells = [cell for cell in cells if not cell.finished]
    # What is finished is checked here: it must be the run that is asked for.
    for cell in cells:
        if cell.finished:
            run_cell(cell)
    jobs = min(jobs, len(open_cells))
    if cluster is not None:
        done = _spread(open_cells, cluster)
    elif jobs > 1:
        done = _spread_here(open_cells, jobs)
    else:
        done = (run_cell(cell, progress) for cell in open_cells)
    bar = tqdm(total=len(cells), desc="grid", unit="run", disable=not progress)
    bar.update(len(cells) - len(open_cells))
    for _ in done:
        bar.update()
    bar.close()
    return [cell.folder for cell in cells]


def _spread_here(cells: Sequence[Cell], jobs: int) -> Iterator[Path]:
    """Run cells in processes of this machine; yields folders as they finish."""
    _distributed()
    from distributed.deploy.subprocess import SubprocessCluster

    # Processes that are forked or spawned from this one would run a user's script anew.
    cluster = SubprocessCluster(
        n_workers=jobs,
        threads_per_worker=1,
        worker_kwargs={"memory_limit": 0},
        # Without this process, killed, nothing asks for work: then they end themselves.
        scheduler_kwargs={"dashboard": False, "idle_timeout": "1 minute"},
    )
    with cluster:
        yield from _spread(cells, cluster.scheduler_address)


def _spread(cells: Sequence[Cell], address: str) -> Iterator[Path]:
    """Run cells on the workers of a scheduler; yields folders as they finish.

    A cell whose worker dies is given to another one, which goes on from its last epoch.
    """
    distributed = _distributed()
    # A class of the user's own lies where the command was given, not on the workers.
    kinds = {method_class(cell.preset.model.method) for cell in cells}
    files = dict.fromkeys(file for kind in kinds for file in sources_of(kind))
    with distributed.Client(address) as client:
        for file in files:
            client.upload_file(str(file))
        futures = [
            client.submit(run_cell, cell, key=str(cell.folder), pure=False)
            for cell in cells
        ]
        for future in distributed.as_completed(futures):
            yield future.result()


def _distributed() -> Any:
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "a cluster, or several runs at a time, needs dask.distributed: "
            'pip install "lnln[scale]" (or --jobs 1)'
        ) from error
    return distributed
