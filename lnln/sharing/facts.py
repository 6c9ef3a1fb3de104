"""What must be told of a result, from the records of its runs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lnln.data.errors import UserError
from lnln.data.mmsa.layouts.features import PUBLISHED
from lnln.evaluation import sweep as ev
from lnln.missing.corruption import CORRUPTIONS, file_under
from lnln.missing.erasing import TEST_RATES
from lnln.models import title_of
from lnln.training.checkpoint import CheckpointError
from lnln.training.settings import MASKS, with_later_settings

_WORDS = {"l": "language", "a": "audio", "v": "vision"}


class ReportError(UserError, ValueError):
    """Runs that no one report can be about; says which and why."""


@dataclass(frozen=True)
class Scored:
    """A run with the scores of its sweep.

    Attributes:
        name: of its folder.
        record: as in `record.json`.
        scores: its own and the references', in tidy form, under one corruption;
            empty where it was not swept.
    """

    name: str
    record: dict[str, Any]
    scores: pd.DataFrame

    @property
    def method(self) -> str:
        """As papers print it, with what it answers with."""
        answer = self.record["preset"]["train"].get("answer", "point")
        return title_of(self.record["method"], answer)

    @property
    def swept(self) -> pd.DataFrame:
        """Its own scores at r = 0 to 0.9, with all that it was trained with."""
        modalities = "".join(self.record["preset"]["train"]["modalities"])
        used = ~self.scores["method"].isin(ev.REFERENCES)
        used &= self.scores["available"] == modalities
        return self.scores[used & self.scores["rate"].isin(TEST_RATES)]

    @property
    def mask_seeds(self) -> list[str]:
        """Under which it was scored."""
        return sorted(self.swept["mask_seed"].unique())


def read_scored(folder: Path | str, corruption: str = "random") -> Scored:
    """Read a run that `lnln evaluate` or `lnln compare` has scored.

    Args:
        folder: of the run.
        corruption: a key of `CORRUPTIONS`, under which it was scored.

    Raises:
        CheckpointError: it holds no run, or one that was not swept over all rates.
    """
    folder = Path(folder)
    run = _read(folder, corruption)
    if set(run.swept["rate"]) != set(TEST_RATES):
        option = "" if corruption == "random" else f" --corruption {corruption}"
        raise CheckpointError(
            f"{folder}: not scored at all rates; lnln evaluate {folder}{option}"
        )
    return run


def read_run(folder: Path | str) -> Scored:
    """Read a run that may not have been scored, its scores then being empty.

    Raises:
        CheckpointError: the folder holds no run.
    """
    return _read(Path(folder), "random")


def _read(folder: Path, corruption: str) -> Scored:
    record = ev.load_record(folder)
    path = folder / file_under(corruption, "robustness.csv")
    empty = pd.DataFrame(columns=list(ev.COLUMNS))
    scores = ev.read_csv(path) if path.is_file() else empty
    return Scored(folder.resolve().name, record, scores)


def facts(runs: Sequence[Scored], spread: str) -> dict[str, list[str]]:
    """Everything that a reader must know to believe or repeat the numbers.

    Args:
        runs: on the same data, under the same protocol; see `alike`.
        spread: what "±" means beside the numbers, as a sentence; empty: nothing.

    Returns:
        {heading: sentences}. What stands in backticks is code.
    """
    first = runs[0]
    return {
        "Data": _data(first.record["data"]),
        "What was missing": _missing(first),
        "Selection": _selection(runs),
        "Seeds": [_seeds(runs), *([spread] if spread else [])],
        "Read against": _read_against(runs),
        "Training": [_training(run) for run in _one_each(runs)] + [_made_with(first)],
        "Limits": limits(runs),
    }


def alike(runs: Sequence[Scored]) -> None:
    """Make sure that numbers of several runs may stand in one table.

    Raises:
        ReportError: they are on other data, chosen by another rule, scored under other
            masks, or the same run twice.
    """
    first = runs[0]
    for what, value in {
        "on other data": lambda run: run.record["data"]["sha256"],
        "for labels of another scheme": lambda run: run.record["data"]["scheme"],
        "with another selection rule": lambda run: run.record["selection"],
        "under other mask seeds": lambda run: run.mask_seeds,
        "on another split": lambda run: sorted(run.swept["split"].unique()),
    }.items():
        for run in runs[1:]:
            if (theirs := value(run)) != (ours := value(first)):
                raise ReportError(
                    f"{run.name} was trained or scored {what} than {first.name} "
                    f"({theirs} and {ours}); one report is about runs that differ in "
                    "method and seed only"
                )
    for title, members in grouped(runs).items():
        seeds = [run.record["seed"] for run in members]
        if len(set(seeds)) < len(seeds):
            raise ReportError(
                f"{title}: training seed {max(seeds, key=seeds.count)} stands there "
                "twice, as if it were two seeds; name each run once"
            )


def grouped(runs: Sequence[Scored]) -> dict[str, list[Scored]]:
    """The runs that differ in their seed only, by the title that they share."""
    settings: list[tuple[Any, list[Scored]]] = []
    for run in runs:
        own = _without_seed(run.record["preset"])
        for known, members in settings:
            if known == own:
                members.append(run)
                break
        else:
            settings.append((own, [run]))
    titles = [members[0].method for _, members in settings]
    return {
        # Variants of one method are told apart by their folders.
        title
        if titles.count(title) == 1
        else f"{title} ({members[0].name.rsplit('-', 1)[0]})": members
        for title, (_, members) in zip(titles, settings, strict=True)
    }


def references(runs: Sequence[Scored]) -> dict[str, dict[str, float]]:
    """What the results are read against, by name and metric; means over the rates.

    Args:
        runs: swept under the same conditions.
    """
    scores = pd.concat([run.scores for run in runs])
    used = scores["method"].isin(ev.REFERENCES) & scores["rate"].isin(TEST_RATES)
    used &= scores["available"] == "".join(
        runs[0].record["preset"]["train"]["modalities"]
    )
    means = scores[used].groupby(["method", "metric"], sort=False)["value"].mean()
    return {name: means[name].to_dict() for name in means.index.unique("method")}


def _without_seed(preset: dict[str, Any]) -> dict[str, Any]:
    train = {**with_later_settings(preset["train"]), "seed": None}
    return {**preset, "train": train, "name": ""}


def _one_each(runs: Sequence[Scored]) -> list[Scored]:
    return [members[0] for members in grouped(runs).values()]


def _data(data: dict[str, Any]) -> list[str]:
    if data["name"] == "simulated":
        origin = f"The data are simulated: `{data['source']}`"
    else:
        known = PUBLISHED.get(data["sha256"])
        told = f"published with MMSA as {known}" if known else "not a published file"
        origin = f"The data are the file `{Path(data['source']).name}` ({told})"
    sentences = [
        f"{origin}, scored as {data['scheme']}, SHA-256 `{data['sha256']}`.",
    ]
    if data["mended"]:
        sentences.append("Mended on reading: " + _joined(data["mended"]))
    if data["notes"]:
        sentences.append("Noted on reading: " + _joined(data["notes"]))
    return sentences


def _joined(sentences: Sequence[str]) -> str:
    return "; ".join(sentence.rstrip(".") for sentence in sentences) + "."


def _missing(run: Scored) -> list[str]:
    train = run.record["preset"]["train"]
    sentences = [f"In training: {MASKS[train['masks']]}."]
    if train["masks"] != "none":
        sentences.append(
            "Each modality of an utterance loses a share of its words or frames: in "
            "half of the cases nothing, else a share drawn from [0, 1)."
        )
    gone = [_WORDS[m] for m in _WORDS if m not in train["modalities"]]
    if gone:
        sentences.append(
            f"{' and '.join(gone).capitalize()} was not there at all, neither in "
            "training nor in the test."
        )
    if len(run.swept):
        severity = CORRUPTIONS[run.swept["corruption"].iloc[0]].severity
        split = run.swept["split"].iloc[0]
        sentences.append(
            f"In the {split} split: {severity} = 0, 0.1, ..., 0.9, the same for each "
            f"modality, mask seeds {', '.join(run.mask_seeds)}."
        )
    return sentences


def _selection(runs: Sequence[Scored]) -> list[str]:
    sentences = [f"Reported epoch: {runs[0].record['selection_rule']}."]
    for title, members in grouped(runs).items():
        best = [str(int(r.record["best"]["validation"]["epoch"])) for r in members]
        epochs = members[0].record["preset"]["train"]["epochs"]
        sentences.append(
            f"Best epoch on validation data of {title}: {', '.join(best)} of at most "
            f"{epochs}."
        )
    return sentences


def _seeds(runs: Sequence[Scored]) -> str:
    of_each = (
        f"{title} {', '.join(str(run.record['seed']) for run in members)}"
        for title, members in grouped(runs).items()
    )
    return f"Training seeds: {'; '.join(of_each)}."


def _read_against(runs: Sequence[Scored]) -> list[str]:
    means = references(runs)
    told = (f"{name} {metrics['mae']:.3f}" for name, metrics in means.items())
    return (
        [f"Mean MAE over r = 0 to 0.9: {', '.join(told)}."] if means else ["Nothing."]
    )


def _training(run: Scored) -> str:
    record, train = run.record, run.record["preset"]["train"]
    encoder = record["preset"]["model"]["encoder"]["name"]
    told = "built from scratch" if encoder is None else f"`{Path(encoder).name}`"
    return (
        f"{run.method}: {record['parameters']:,} parameters, text encoder {told}, "
        f"batches of {train['batch_size']}, peak learning rate "
        f"{train['learning_rate']:g}, weight decay {train['weight_decay']:g}, on "
        f"{record['device']}."
    )


def _made_with(run: Scored) -> str:
    names = ("lnln", "torch", "transformers")
    made = (f"{name} {run.record['versions'][name]}" for name in names)
    return f"Made with {', '.join(made)}."


def limits(runs: Sequence[Scored]) -> list[str]:
    """What must not be read into the numbers."""
    first, groups = runs[0].record, grouped(runs)
    found = []
    if first["data"]["name"] == "simulated":
        found.append("Simulated data: nothing follows for MOSI, MOSEI, SIMS or people.")
    if first["selection"] != "validation":
        found.append(
            "The epoch was chosen on the test split, which flatters the numbers."
        )
    if unfinished := [run.name for run in runs if not run.record["finished"]]:
        found.append(f"Not trained to the end: {', '.join(unfinished)}.")
    if (fewest := min(map(len, groups.values()))) == 1:
        found.append("One training seed: how another would end is not known.")
    elif fewest < 5:
        found.append(
            f"{fewest} training seeds: intervals are wide, and a matter of luck."
        )
    if (
        len({tuple(sorted(run.record["seed"] for run in g)) for g in groups.values()})
        > 1
    ):
        found.append("The methods were trained with different seeds.")
    if not len(runs[0].scores):
        found.append("Not scored: there are no numbers over missing rates.")
    found.append("One data set, one set of features, one kind of damage.")
    return found
