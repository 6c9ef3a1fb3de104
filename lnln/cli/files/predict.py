"""`lnln predict`: what a trained model says of clips without labels, or a sentence."""

from __future__ import annotations

import argparse
from pathlib import Path

from lnln.cli import Subparsers
from lnln.data.errors import SettingsError
from lnln.data.simulated.lexicon import lexicon
from lnln.evaluation.predict import (
    Answers,
    predict,
    tokenizer_of,
    utterance,
)
from lnln.training.checkpoint import TrainedModel, open_run
from lnln.training.devices import resolve_device


def add_predict(commands: Subparsers) -> None:
    """Add the command to the others."""
    parser = commands.add_parser(
        "predict",
        help="predict the sentiment of clips without labels, or of a typed sentence",
        description="Predict the sentiment of clips; labels are not needed. Writes a "
        "table with what each answer rests on, and beside it (.json) the run, both "
        "files and all warnings. Try: lnln predict mini --text 'a wonderful film'",
    )
    parser.add_argument(
        "model", help="a run folder, a checkpoint, or 'mini' for the shipped model"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", help="file of features, as lnln features writes it")
    what.add_argument("--text", help="a sentence; voice and face count as missing")
    parser.add_argument("--out", type=Path, help="table to write: predictions.csv")
    parser.add_argument(
        "--split", help="which split of the file (default: test, or the only one)"
    )
    parser.add_argument(
        "--other-features",
        action="store_true",
        help="go on where features were made otherwise than those of the training",
    )
    parser.add_argument(
        "--encoder",
        help="folder or hub name of the text encoder, if it has moved since training "
        "and its tokenizer is needed",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    if options.text is not None:
        return _sentence(options)
    if options.out is None:
        raise SettingsError("name the table to write: --out predictions.csv")
    answers = predict(
        options.model,
        options.data,
        split=options.split,
        other_features=options.other_features,
        encoder=options.encoder,
        device=options.device,
    )
    _warn(answers)
    beside = answers.write(options.out)
    print(f"{options.out}: {len(answers.table)} clips\n{beside}: what stands behind it")
    return 0


def _warn(answers: Answers) -> None:
    for key in ("mended", "notes"):
        for sentence in answers.about["data"][key]:
            print(f"{key.removesuffix('s')}: {sentence}")
    for sentence in answers.warnings:
        print(f"warning: {sentence}")


def _sentence(options: argparse.Namespace) -> int:
    if options.split is not None or options.other_features:
        raise SettingsError("--split and --other-features go with --data")
    trained = open_run(options.model, resolve_device(options.device))
    clip = utterance(trained, options.text, name="typed")
    answers = predict(options.model, clip, device=options.device)
    row = answers.table.iloc[0]
    print(f"sentiment {row['sentiment']:+.2f} ({_scale(trained)})")
    if row["spread"] != "":
        print(f"spread {row['spread']:.2f} (standard deviation of its distribution)")
    if row["completeness"] != "":
        print(
            f"completeness {row['completeness']:.2f} "
            f"({row['words_present']} of {row['words']} words are known to the model)"
        )
    print(f"{row['note'] or 'all is present'}")
    for line in _limits(options, trained):
        print(line)
    if options.out is not None:
        print(f"{options.out}\n{answers.write(options.out)}")
    return 0


def _scale(trained: TrainedModel) -> str:
    limit = 1 if trained.provenance["data"]["scheme"] == "sims" else 3
    return f"from {-limit}, very negative, to {limit}, very positive"


def _limits(options: argparse.Namespace, trained: TrainedModel) -> list[str]:
    """Which words a model does not know, and what the shipped one is."""
    tokenizer = tokenizer_of(trained)
    words = options.text.split()
    unknown = [
        word
        for word, ids in zip(words, tokenizer.encode(words), strict=True)
        if tokenizer.special.unk in ids
    ]
    lines = []
    if unknown:
        lines.append(f"outside of its vocabulary, read as [UNK]: {', '.join(unknown)}")
    if trained.provenance["data"]["name"] == "simulated":
        count = sum(not token.startswith("[") for token in lexicon().vocab)
        lines.append(
            f"{options.model} was trained on a simulated language of {count} words: "
            "good for a first look, not for what people say."
        )
    return lines
