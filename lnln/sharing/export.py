"""Write a trained model as an ONNX file, for programs without PyTorch.

The file holds everything: column scaling, text encoder, network. Any number of
utterances and any lengths up to the model's own may be asked for. What is written is
compared with PyTorch before it appears under its name.

Outputs, in this order: `sentiment` (B,), the answer as a number, of a distribution its
mean; from a model that answers with a distribution `probabilities` (B, K) of the label
values, which the file's metadata list as JSON under "label_values"; from LNLN
`completeness` (B,), w.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lnln.data.batch import CLS, SEP, Batch, SpecialTokens
from lnln.data.errors import MissingPackageError, UserError
from lnln.data.files import atomic_path
from lnln.models import build_model
from lnln.models.blocks.answers import label_values
from lnln.models.method import ModelConfig
from lnln.training.checkpoint import TrainedModel, keeping_random_state

#: Largest difference to PyTorch with which a file is accepted.
TOLERANCE = 1e-4
#: Names of the inputs, in order, as in `Batch`: raw units, erased words as [UNK].
INPUTS = (
    "tokens",
    "token_lengths",
    "audio",
    "audio_lengths",
    "vision",
    "vision_lengths",
)


class ExportError(UserError, RuntimeError):
    """A model cannot be written, or the file does not compute what it computes."""


class _Reader(nn.Module):
    """The road from a batch to the prediction, in the network's plain form.

    Its sequence of operations does not depend on lengths.
    """

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        architecture = trained.model.text_encoder.architecture()
        with keeping_random_state():
            self.net = build_model(trained.model.config, architecture, plain=True)
        self.net.load_state_dict(trained.model.state_dict())
        self.standardizer = trained.standardizer
        data = trained.provenance.get("data", {})
        self.special = SpecialTokens(**data.get("special_tokens", {}))

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        labels = inputs[0].new_zeros(inputs[0].shape[0], dtype=torch.float32)
        parts: dict[str, Any] = dict(zip(INPUTS, inputs, strict=True))
        batch = Batch(**parts, labels=labels, special=self.special)
        if self.standardizer is not None:
            batch = self.standardizer(batch)
        output = self.net(batch)
        outputs = {
            "sentiment": output.sentiment,
            "probabilities": output.probabilities,
            "completeness": getattr(output, "completeness", None),
        }
        return {name: x for name, x in outputs.items() if x is not None}


def export_onnx(trained: TrainedModel, path: Path | str) -> float:
    """Write a model and check the file.

    Args:
        trained: the model; a copy of it is written from the CPU.
        path: the file to write or replace.

    Returns:
        The largest difference to PyTorch over batches of several sizes and lengths.

    Raises:
        MissingPackageError: onnx, onnxscript or onnxruntime is missing.
        ExportError: that difference is above `TOLERANCE`, the method does something
            that cannot be written for free lengths, or ONNX Runtime refuses what this
            torch wrote (2.6 does so).
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(f"{error}; run pip install 'lnln[export]'") from error
    path = Path(path)
    reader = copy.deepcopy(_Reader(trained)).cpu().eval()
    config = trained.preset.model
    count = torch.export.Dim("batch", min=1, max=1 << 16)
    sizes = {
        "tokens": torch.export.Dim("words", min=3, max=config.text_length),
        "audio": torch.export.Dim("audio_frames", min=1, max=config.audio_length),
        "vision": torch.export.Dim("vision_frames", min=1, max=config.vision_length),
    }
    dynamic = tuple(
        {0: count, 1: sizes[name]} if name in sizes else {0: count} for name in INPUTS
    )
    example = _example(config, 3, config.text_length)
    with torch.no_grad():
        outputs = reader(*example)
    with atomic_path(path) as draft:
        model = _bare(_written(reader, example, dynamic, list(outputs), config.method))
        if "probabilities" in outputs:
            values = label_values(outputs["probabilities"].double()).tolist()
            onnx.helper.set_model_props(model, {"label_values": json.dumps(values)})
        onnx.save(model, draft)
        lengths = ((1, 3), (4, config.text_length), (7, 9))
        batches = [_example(config, *size) for size in lengths]
        try:
            session = onnxruntime.InferenceSession(draft)
            worst = max(_apart(reader, session, batch) for batch in batches)
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise ExportError(
                f"torch {torch.__version__} wrote a file that ONNX Runtime does not "
                f"take ({str(error).strip().splitlines()[0]}); install torch 2.13, "
                "with which files were tested"
            ) from error
        if not worst <= TOLERANCE:
            raise ExportError(f"{path}: differs from PyTorch by {worst:.1e}")
    return worst


def _written(
    reader: _Reader,
    example: tuple[Tensor, ...],
    dynamic: tuple[Any, ...],
    outputs: list[str],
    method: str,
) -> Any:
    """The ONNX program; what a method does may be more than ONNX can say."""
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                reader,
                example,
                dynamo=True,
                external_data=False,
                dynamic_shapes=(dynamic,),
                input_names=list(INPUTS),
                output_names=outputs,
                custom_translation_table={torch.ops.aten.squeeze.dim: _squeeze},
            )
    except Exception as error:  # of whatever kind: the exporter has many
        told = str(error.__cause__ or error).strip().split("\n")[0]
        raise ExportError(
            f"{method} cannot be written as ONNX ({told}); forward must do the same "
            "for all lengths: no sizes that depend on the data, no packed sequences"
        ) from error
    assert program is not None  # only the other exporter gives None
    return program.model_proto


def _apart(reader: _Reader, session: Any, inputs: tuple[Tensor, ...]) -> float:
    """The largest difference between network and file in any output."""
    named = dict(zip(INPUTS, (x.numpy() for x in inputs), strict=True))
    with torch.no_grad():
        expected = reader(*inputs)
    found = session.run(list(expected), named)
    differences = [
        (ours - torch.from_numpy(theirs)).abs().max()
        for ours, theirs in zip(expected.values(), found, strict=True)
    ]
    return torch.stack(differences).nan_to_num(nan=torch.inf).max().item()


def _squeeze(x: Any, dim: int) -> Any:
    """As in PyTorch, logits stay as they are; the exporter would write a bad file."""
    from onnxscript import opset18

    wide = isinstance(x.shape[dim], int) and x.shape[dim] != 1
    axes: Any = [dim]
    return opset18.Identity(x) if wide else opset18.Squeeze(x, axes)


def _example(config: ModelConfig, count: int, length: int) -> tuple[Tensor, ...]:
    """Random utterances with lengths from the shortest to `length` or the model's."""
    generator = torch.Generator().manual_seed(count)
    lengths = torch.linspace(length, 3, count).long()
    vocab = config.encoder.vocab_size
    high = max(vocab, SEP + 2)
    tokens = torch.randint(SEP + 1, high, (count, length), generator=generator)
    tokens[:, 0] = CLS
    tokens = tokens.masked_fill(torch.arange(length) >= lengths[:, None], 0)
    tokens[torch.arange(count), lengths - 1] = SEP
    frames = []
    for size, width in (
        (config.audio_length, config.audio_width),
        (config.vision_length, config.vision_width),
    ):
        own = torch.linspace(size, 1, count).long()
        x = torch.randn(count, size, width, generator=generator)
        frames += [x * (torch.arange(size) < own[:, None])[..., None], own]
    return (tokens, lengths, *frames)


def _bare(program: Any) -> Any:
    """Remove what the exporter notes of each operation's origin, half of the file."""
    for node in program.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del program.graph.value_info[:]
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports each of its steps; only its errors matter here."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
