"""What chapters read is collected from scored runs, and what runs cost is counted."""

import json
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from benchmarks import cost
from benchmarks.cost import Counter, count, recurrent_layers_in_one_call
from tools import load_tool
from torch.nn.utils.rnn import pack_padded_sequence

from lnln.evaluation.sweep import BAYES, write_csv
from lnln.models import TITLES
from lnln.models.blocks.encoder import EncoderConfig
from lnln.paper.reproduce import expected_hours
from lnln.training.checkpoint import write_tensors
from lnln.training.presets import PRESETS, preset_for

tool = load_tool("scores")


def score(**changes: Any) -> dict[str, Any]:
    base = {"method": "LNLN", "seed": 7, "available": "lav", "corruption": "random"}
    base |= {"mask_seed": 0, "rate": 0.0, "metric": "mae", "value": 1.0}
    return base | changes


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "lnln_gamma0-7"
    folder.mkdir()
    scores = [
        score(),
        score(mask_seed=1, value=1.2),
        score(rate=0.5, value=2.0),
        score(rate=0.5, mask_seed=1, value=2.4),
        score(rate=1.0, value=9.0),  # not one of the ten rates
        score(available="la", value=5.0),  # another subset of modalities
        score(method=BAYES, mask_seed="", value=0.1),
        score(metric="f1_neg_pos", value=0.5),
    ]
    write_csv(folder / "robustness.csv", pd.DataFrame(scores))
    words = pd.DataFrame([score(corruption="words", value=3.0)])
    write_csv(folder / "robustness-words.csv", words)
    preset = PRESETS["mini"].to_dict()
    best = {"validation": {"epoch": 3, "score": 1.25}}
    (folder / "record.json").write_text(json.dumps({"preset": preset, "best": best}))
    return folder


def test_scores_are_means_over_masks(run: Path) -> None:
    scores = tool.scores(run, by_mask=False)
    of_rate = scores.rate.notna()
    chosen = scores.loc[~of_rate, ["seed", "metric", "value"]]
    assert chosen.to_numpy().tolist() == [["7", "validation", 1.25], ["7", "epoch", 3]]
    scores = scores[of_rate]
    assert list(scores.itertuples(index=False, name=None)) == [
        ("lnln_gamma0", "7", "words", "mae", 0.0, 3.0),
        ("lnln_gamma0", "7", "random", "mae", 0.0, pytest.approx(1.1)),
        ("lnln_gamma0", "7", "random", "mae", 0.5, pytest.approx(2.2)),
        ("lnln_gamma0", "7", "random", "mae", 1.0, 9.0),
    ]


def test_scores_by_mask_are_means_over_rates(run: Path) -> None:
    scores = tool.scores(run, by_mask=True).query("corruption == 'random'")
    assert scores.mask_seed.tolist() == ["0", "1"]
    assert scores.value.tolist() == pytest.approx([1.5, 1.8])


def test_the_file_of_a_chapter_has_five_decimals(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores.csv"
    monkeypatch.setattr("sys.argv", ["scores.py", str(out), str(run)])
    assert tool.main() == 0
    head, first, *_ = out.read_text().splitlines()
    assert head == "run,seed,corruption,metric,rate,value"
    assert first == "lnln_gamma0,7,words,mae,0.0,3.00000"


def test_errors_by_utterance_are_means_over_masks_and_rates(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "labels": torch.tensor([1.0, -2.0]),
        "sentiment": torch.tensor([[1.5, -2.0], [0.0, -2.25]]),
    }
    write_tensors(run / "predictions.safetensors", told, {})
    out = tmp_path / "errors.csv"
    command = ["scores.py", str(out), "--by-utterance", str(run)]
    monkeypatch.setattr("sys.argv", command)
    assert tool.main() == 0
    assert out.read_text().splitlines() == ["run,seed,0,1", "lnln_gamma0,7,0.75,0.125"]


def test_a_run_without_scores_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not scored"):
        tool.scores(tmp_path, by_mask=False)


def test_operations_are_counted() -> None:
    with Counter() as counter:
        torch.ones(3, 4) @ torch.ones(4, 5)
    assert counter.flops == 2 * 3 * 4 * 5
    assert counter.operations == 3


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
def test_a_recurrent_layer_is_one_operation_however_long_the_sequence(
    kind: type[torch.nn.RNNBase],
) -> None:
    layer = kind(5, 7, num_layers=2, batch_first=True, bidirectional=True)

    def work(frames: int) -> tuple[Counter, list[torch.Tensor]]:
        torch.manual_seed(frames)
        lengths = torch.tensor([frames, frames // 2, 2])
        x = torch.randn(3, frames, 5)
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        layer.zero_grad()
        with Counter() as counter:
            layer(packed)[0].data.square().sum().backward()
        return counter, [p.grad.clone() for p in layer.parameters()]

    with recurrent_layers_in_one_call():
        short, long = work(8), work(64)
    step_by_step = work(64)
    assert short[0].operations == long[0].operations < step_by_step[0].operations / 20
    # What is counted is still computed.
    assert long[0].flops == step_by_step[0].flops > 4 * short[0].flops
    for one, other in zip(long[1], step_by_step[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_no_recurrent_method_takes_many_times_the_hours_of_the_others() -> None:
    # As when its frames were counted one by one.
    for name in ("mosi", "mosei", "sims"):
        others = [expected_hours([preset_for(m, name)], name) for m in TITLES]
        assert max(others) < 5 * statistics.median(others)


def test_what_a_run_computes_is_counted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = EncoderConfig(width=32, depth=1, heads=2)
    titles, splits = {"almt": "ALMT", "lnln": "LNLN"}, {"mosi": (128, 2, 2)}
    for name, value in (("BERT", small), ("TITLES", titles), ("SPLITS", splits)):
        monkeypatch.setattr(cost, name, value)
    monkeypatch.setattr(cost, "OUT", tmp_path / "cost.csv")
    cost.main()
    almt, lnln = pd.read_csv(cost.OUT).to_dict("records")
    assert (lnln["epochs"], lnln["steps"]) == (200, 400)
    # LNLN has what ALMT has and, beside it, what estimates and rebuilds.
    for kind in ("petaflop", "million_operations"):
        assert lnln[kind] > almt[kind] > 0


@pytest.mark.nightly
def test_bert_takes_what_its_size_says() -> None:
    step, _ = count("misa", "mosi")
    # Twice for each weight and token forward, twice that backward; BERT base has
    # 85 million weights in its layers, and MISA reads the text once.
    assert step.flops == pytest.approx(6 * 85e6 * 2 * 50, rel=0.1)


def test_every_run_of_the_paper_has_its_hours() -> None:
    for name in ("mosi", "mosei", "sims"):
        each = [expected_hours([preset_for(m, name)], name) for m in TITLES]
        assert min(each) > 0
        presets = [preset_for(m, name) for m in TITLES]
        assert expected_hours(presets, name) == pytest.approx(sum(each))
    lnln = [expected_hours([PRESETS[n]], n) for n in ("mosi", "mosei")]
    assert lnln[1] > 8 * lnln[0]  # MOSEI has 13 times as many utterances
