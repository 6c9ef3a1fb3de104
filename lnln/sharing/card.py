"""The card of a model that is shared: Markdown, written from its record."""

from __future__ import annotations

import json

import pandas as pd

from lnln.evaluation.plots import METRIC_TITLES
from lnln.evaluation.tables import markdown
from lnln.missing.erasing import TEST_RATES
from lnln.sharing.facts import Scored, facts
from lnln.sharing.intervals import interval
from lnln.sharing.report import HEADLINE

_SPREAD = (
    "± is half of the 95 % interval over mask seeds, by Student's t: the chance of "
    "what was missing, for this one model. It says nothing about training again."
)


def card_of(run: Scored, licence: str | None = None) -> str:
    """Write the card.

    Args:
        run: record and, where it was swept, scores of the model.
        licence: as the hub names it; None: "mit" for simulated data, else "other".

    Returns:
        YAML between two lines of ---, then Markdown.
    """
    data = run.record["data"]
    simulated = data["name"] == "simulated"
    told = licence or ("mit" if simulated else "other")
    head = {
        "license": told,
        "library_name": "lnln",
        "tags": ["multimodal-sentiment-analysis", "missing-data", run.record["method"]],
    }
    scores = len(run.swept) > 0
    sections = facts([run], _SPREAD if scores and len(run.mask_seeds) > 1 else "")
    parts = [
        # JSON is YAML, and needs no quoting of what a method may be called.
        "\n".join(["---", *(f"{k}: {json.dumps(v)}" for k, v in head.items()), "---"]),
        f"# {run.method} on {data['name']} data",
        "Predicts the sentiment of utterances from words, voice and face, of which "
        f"parts are missing. {_answer(run)} Trained with the package `lnln`.",
        _use(run),
        *(f"## {name}\n\n{' '.join(text)}" for name, text in sections.items()),
        "## Scores\n\n" + (_scores(run) if scores else "It was not scored."),
        "## Licence\n\n" + _licence(licence, simulated, told),
    ]
    return "\n\n".join(parts) + "\n"


def _answer(run: Scored) -> str:
    if run.record["preset"]["train"].get("answer", "point") == "point":
        return "It answers with a number."
    return "It answers with probabilities of all values that a label can take."


def _use(run: Scored) -> str:
    module, own, _ = run.record["method"].partition(":")
    before = f"import {module}  # its code: read it first\n" if own else ""
    model = run.record["preset"]["model"]
    return (
        "```python\nimport lnln\n"
        f'{before}\nmodel = lnln.from_pretrained("FOLDER or USER/NAME")\n'
        "output = model(batch)  # an lnln.Batch, in raw units\n```\n\n"
        "It reads features like those that it was trained with: audio "
        f"{model['audio_width']} and vision {model['vision_width']} wide, token ids of "
        "its text encoder."
    )


def _scores(run: Scored) -> str:
    """A line a rate, from the run's own sweep."""
    metrics = HEADLINE[run.record["data"]["scheme"]]
    swept = run.swept[run.swept["metric"].isin(metrics)]
    lines = {}
    for name, part in [
        *((f"{rate:.1f}", swept[swept["rate"] == rate]) for rate in TEST_RATES),
        ("mean", swept),
    ]:
        by_mask = part.groupby(["metric", "mask_seed"])["value"].mean()
        lines[name] = {m: str(interval(by_mask[m].to_list())) for m in metrics}
    table = pd.DataFrame.from_dict(lines, orient="index").rename(columns=METRIC_TITLES)
    return markdown(table.rename_axis("r"))


def _licence(licence: str | None, simulated: bool, told: str) -> str:
    if licence is not None:
        return f"This model: {told}, said by who shared it."
    if simulated:
        return "This model: MIT, like the package and its simulated data."
    return (
        "Not stated by who shared it. The data set has terms of its own, which may "
        "bind what is made from it; ask its makers before you use the model."
    )
