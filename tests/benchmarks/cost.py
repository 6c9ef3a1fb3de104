"""What a run with the paper's settings has to compute, counted and not timed.

    python tests/benchmarks/cost.py

trains each method for an epoch on a handful of utterances with BERT base (untrained),
every sequence as long as it can be, and counts multiplications and started operations,
apart for a training step and for the prediction of an utterance. A recurrent layer is
started once, as a GPU is told it, where a CPU goes from frame to frame; so is a step of
the optimizer. What a whole run takes goes to `data/benchmarks/cost.csv`.
"""

import csv
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode_stack,
)
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.flop_counter import flop_registry
from tqdm.auto import tqdm

from lnln.data.batch import CLS, SEP, Batch, Dataset, Split
from lnln.models import TITLES
from lnln.models.blocks.encoder import EncoderConfig
from lnln.models.fast import FEW
from lnln.training import loop as training
from lnln.training.presets import preset_for
from lnln.training.settings import Preset, with_train

OUT = Path(__file__).parents[2] / "data" / "benchmarks" / "cost.csv"
BERT = EncoderConfig(width=768, depth=12, heads=12, ffn_width=3072)
#: Utterances of training, validation and test split.
SPLITS = {
    "mosi": (1284, 229, 686),
    "mosei": (16326, 1871, 4659),
    "sims": (1368, 456, 457),
}
#: Utterances that are counted; all that grows with them is scaled up.
COUNT = 2


class Counter(TorchDispatchMode):
    """Counts FLOPs, and operations, which a GPU has to be told one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.operations = 0
        self._inside = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        self.flops += formula(*args, **kwargs, out_val=out) if formula else 0
        self.operations += not self._inside
        return out

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count all operations inside as one."""
        self._inside, before = True, self._inside
        try:
            yield
        finally:
            self._inside = before
            self.operations += not before


class _OneCall(torch.autograd.Function):
    """A recurrent layer as one operation, and its gradient as another."""

    @staticmethod
    def forward(ctx: Any, layer: Callable[..., Any], spec: Any, *given: Any) -> Any:
        inputs = [
            x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x
            for x in given
        ]
        with torch.enable_grad(), _counter().one():
            outputs = layer(*tree_unflatten(inputs, spec))
        ctx.wanted = [isinstance(x, Tensor) and x.requires_grad for x in inputs]
        ctx.inputs, ctx.outputs = inputs, outputs
        return tuple(out.detach() for out in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        wanted = [x for x, w in zip(ctx.inputs, ctx.wanted, strict=True) if w]
        with _counter().one():
            found = iter(torch.autograd.grad(ctx.outputs, wanted, gradients))
        return None, None, *(next(found) if w else None for w in ctx.wanted)


def _counter() -> Counter:
    modes = _get_current_dispatch_mode_stack()
    return next((mode for mode in modes if isinstance(mode, Counter)), Counter())


@contextmanager
def recurrent_layers_in_one_call() -> Iterator[None]:
    """Count `nn.LSTM` and `nn.GRU` inside this block as a GPU is told them."""

    def once(layer: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            leaves, spec = tree_flatten(given)
            return _OneCall.apply(layer, spec, *leaves)

        return call

    lstm, gru = torch._VF.lstm, torch._VF.gru
    with patch.multiple(torch._VF, create=True, lstm=once(lstm), gru=once(gru)):
        yield


@contextmanager
def optimizer_in_one_call() -> Iterator[None]:
    """Count a step of Adam and AdamW inside this block as a GPU's fused one."""
    inner = torch.optim.Adam.step

    def step(self: Any, *given: Any) -> Any:
        with _counter().one():
            return inner(self, *given)

    with patch.object(torch.optim.Adam, "step", step):
        yield


def longest(preset: Preset, scheme: Any) -> Dataset:
    """Random utterances, all as long as the data set's longest."""
    config, generator = preset.model, torch.Generator().manual_seed(0)

    def split(name: str) -> Split:
        tokens = torch.randint(
            1000, 20000, (COUNT, config.text_length), generator=generator
        )
        tokens[:, 0], tokens[:, -1] = CLS, SEP
        parts = [tokens, torch.full((COUNT,), config.text_length)]
        for length, width in (
            (config.audio_length, config.audio_width),
            (config.vision_length, config.vision_width),
        ):
            parts.append(torch.randn(COUNT, length, width, generator=generator))
            parts.append(torch.full((COUNT,), length))
        labels = 2 * torch.rand(COUNT, generator=generator) - 1
        ids = tuple(f"{name}{i}" for i in range(COUNT))
        return Split(Batch(*parts, labels), ids, ("",) * COUNT)

    splits = {name: split(name) for name in ("train", "valid", "test")}
    return Dataset("random", scheme, splits, "random", "0" * 64, ())


def count(method: str, name: str) -> tuple[Counter, Counter]:
    """A training step with `COUNT` utterances, and the validation of `COUNT`."""
    preset = preset_for(method, name)
    preset = replace(preset, model=replace(preset.model, encoder=BERT))
    preset = with_train(preset, epochs=1, batch_size=COUNT)
    dataset = longest(preset, "sims" if name == "sims" else "mosi")
    step, validation = Counter(), Counter()
    inner_step, inner_select = training._step, training._select

    def _step(*args: Any) -> Any:
        with step:
            return inner_step(*args)

    def _select(*args: Any) -> Any:
        with validation:
            return inner_select(*args)

    training._step, training._select = _step, _select
    try:
        # Attention as multiplications of matrices, for which there are formulas; there
        # is none for LSTMs, which are small beside BERT.
        plain = sdpa_kernel(SDPBackend.MATH)
        recurrent, optimizer = recurrent_layers_in_one_call(), optimizer_in_one_call()
        rows = patch.dict(FEW, clear=True)  # of a sweep, as a GPU takes them
        with tempfile.TemporaryDirectory() as folder, plain, recurrent, optimizer, rows:
            training.train(preset, dataset, folder, device="cpu", progress=False)
    finally:
        training._step, training._select = inner_step, inner_select
    return step, validation


def main() -> None:
    """Count all methods on all data sets."""
    rows = []
    for name, (train, valid, test) in SPLITS.items():
        for method in tqdm(TITLES, desc=name):
            preset = preset_for(method, name).train
            step, validation = count(method, name)
            steps = -(-train // preset.batch_size)
            rates = len(preset.validation_rates)
            # A sweep of the test split: ten rates, three mask seeds.
            predicted = preset.epochs * valid + test * 30 / rates
            flops = preset.epochs * train / COUNT * step.flops
            flops += predicted / COUNT * validation.flops
            started = preset.epochs * steps * step.operations
            started += predicted / preset.batch_size * validation.operations
            rows.append(
                {
                    "data": name,
                    "method": method,
                    "epochs": preset.epochs,
                    "steps": preset.epochs * steps,
                    "petaflop": f"{flops / 1e15:.2f}",
                    "million_operations": f"{started / 1e6:.2f}",
                }
            )
    with open(OUT, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
