"""A report says of runs what their records say, and no more."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lnln.cli.main import main
from lnln.evaluation.sweep import BAYES, COLUMNS, write_csv
from lnln.missing.erasing import TEST_RATES
from lnln.sharing.facts import ReportError
from lnln.sharing.intervals import interval
from lnln.sharing.report import report
from lnln.training.checkpoint import CheckpointError
from lnln.training.presets import preset_for
from lnln.training.settings import SELECTIONS, with_train

SHA = "0123456789abcdef" * 4


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10, 31])
def test_intervals_are_those_of_students_t(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    found = interval(values.tolist())
    want = stats.t.ppf(0.975, count - 1) * stats.sem(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.half == pytest.approx(want, rel=1e-9)


def test_one_value_has_no_interval() -> None:
    assert math.isnan(interval([1.5]).half)
    assert str(interval([1.5])) == "1.500"
    assert interval([0.1, 0.3]).signed == "+0.200 ± 1.271"


def made(folder: Path, method: str, seed: int, mae: float, **changes: Any) -> Path:
    """A scored run without a model: its error at rate r is mae + r."""
    preset = with_train(preset_for(method, "mini"), seed=seed)
    record = {
        "data": {
            "name": "simulated",
            "scheme": "mosi",
            "source": "simulate(size='mini', seed=0, train_size=1000)",
            "sha256": SHA,
            "mended": ["a_b & 5 % of the rows."],
            "notes": [],
        },
        "seed": seed,
        "selection": "validation",
        "selection_rule": SELECTIONS["validation"],
        "versions": {"lnln": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "method": method,
        "preset": preset.to_dict(),
        "device": "cpu",
        "parameters": 12345,
        "best": {"validation": {"epoch": 7, "score": 1.0}},
        "finished": True,
        **changes,
    }
    path = folder / f"{method}-{seed}"
    path.mkdir()
    (path / "record.json").write_text(json.dumps(record))
    rows = []
    for rate in TEST_RATES:
        same = {"dataset": "simulated", "split": "test", "available": "lav"}
        same |= {"corruption": "random", "rate": rate}
        for metric, value in (("mae", mae + rate), ("corr", 0.5)):
            for mask, shift in (("0", -0.1), ("1", 0.1)):
                own = {"method": "A", "mask_seed": mask, "value": value + shift}
                rows.append({**same, **own, "metric": metric})
            limit = {"method": BAYES, "mask_seed": "", "value": 0.25}
            rows.append({**same, **limit, "metric": metric})
    write_csv(path / "robustness.csv", pd.DataFrame(rows).reindex(columns=COLUMNS))
    return path


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    errors = {"almt": (1.2, 1.3, 1.5), "lnln": (1.0, 1.2, 1.1)}
    return [
        made(tmp_path, method, seed, mae)
        for method, values in errors.items()
        for seed, mae in enumerate(values)
    ]


def cells(text: str, start: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_methods_are_compared_seed_by_seed(runs: list[Path]) -> None:
    text = report(runs)
    gaps = np.array([0.2, 0.1, 0.4])
    half = stats.t.ppf(0.975, 2) * stats.sem(gaps)
    almt = cells(text, "ALMT")
    assert almt[-1] == f"+{gaps.mean():.3f} ± {half:.3f}"
    half = stats.t.ppf(0.975, 2) * stats.sem([1.2, 1.3, 1.5])
    # r = 0 to 0.9 add 0.45 on average.
    assert almt[1] == f"{4 / 3 + 0.45:.3f} ± {half:.3f}"
    assert cells(text, "LNLN")[-1] == ""
    assert cells(text, BAYES)[1] == "0.250"
    order = [text.index(f"| {name} |") for name in ("ALMT", "LNLN", BAYES)]
    assert order == sorted(order)


def test_one_method_is_told_by_rate(runs: list[Path]) -> None:
    text = report(runs[3:])
    half = stats.t.ppf(0.975, 2) * stats.sem([1.0, 1.2, 1.1])
    assert cells(text, "0.3")[1] == f"1.400 ± {half:.3f}"
    assert cells(text, "mean")[1] == f"1.550 ± {half:.3f}"
    alone = report(runs[3:4])
    assert cells(alone, "0.3")[1] == "1.300"
    assert "±" not in alone and "One training seed" in alone


def test_everything_that_must_be_known_is_there(runs: list[Path]) -> None:
    text = report(runs)
    for told in (
        SHA,
        "are simulated",
        "Mended on reading: a_b & 5 % of the rows.",
        SELECTIONS["validation"],
        "Training seeds: ALMT 0, 1, 2; LNLN 0, 1, 2.",
        "missing rate r = 0, 0.1, ..., 0.9",
        "mask seeds 0, 1.",
        "new rates and new masks in every epoch",
        "12,345 parameters",
        f"Mean MAE over r = 0 to 0.9: {BAYES} 0.250.",
        "nothing follows for MOSI",
        "3 training seeds",
    ):
        assert told in text, told


def test_latex_is_whole_and_escaped(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report.tex"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    text = out.read_text()
    assert r"a\_b \& 5 \% of the rows" in text
    assert r"0123456789abcdef\allowbreak 0123" in text
    assert r"$\pm$" in text and "±" not in text and "`" not in text
    assert text.count("{") == text.count("}")
    for part in ("table", "tabular"):
        assert text.count(rf"\begin{{{part}}}") == text.count(rf"\end{{{part}}}") == 1
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len({line.count("&") for line in rows}) == 1 and len(rows) == 4


def test_runs_that_cannot_stand_together_are_refused(
    runs: list[Path], tmp_path: Path
) -> None:
    def other(seed: int, **changes: Any) -> Path:
        return made(tmp_path, "mmim", seed, 1.0, **changes)

    data = json.loads((runs[0] / "record.json").read_text())["data"]
    with pytest.raises(ReportError, match="mmim-8 .* on other data than almt-0"):
        report([runs[0], other(8, data=data | {"sha256": "f" * 64})])
    with pytest.raises(ReportError, match="another selection rule"):
        report([runs[0], other(9, selection="paper")])
    with pytest.raises(ReportError, match="training seed 0 stands there twice"):
        report([runs[0], runs[1], runs[0]])
    with pytest.raises(CheckpointError, match="lnln evaluate .* --corruption words"):
        report(runs, corruption="words")
    scores = pd.read_csv(runs[0] / "robustness.csv", dtype=str)
    scores[scores.rate != "0.5"].to_csv(runs[0] / "robustness.csv", index=False)
    with pytest.raises(CheckpointError, match="not scored at all rates"):
        report(runs)


def test_what_flatters_is_a_limit(tmp_path: Path) -> None:
    flattered = made(
        tmp_path,
        "almt",
        1,
        1.0,
        selection="paper",
        finished=False,
        selection_rule=SELECTIONS["paper"],
    )
    text = report([flattered])
    assert "chosen on the test split, which flatters" in text
    assert "Not trained to the end: almt-1." in text


def test_command_prints_markdown(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *map(str, runs), "--metrics", "corr"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("- **Data.** The data are simulated")
    assert "| method | Pearson correlation | MAE less that of LNLN |" in out
    assert main(["report", str(runs[0]), "--out", "x.pdf"]) == 1
    assert "a .tex or a .md file" in capsys.readouterr().err
