"""The named choices that settings are made of, and what each means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lnln.errors import SettingsError

#: What the released program computes otherwise than the paper describes, by name.
#: Numbers are those of the list in `lnln.released`.
RELEASED_CHOICES = {
    "adversary": "2-5: gradient reversed before the mixing; D judges H^1_d of the"
    " corrupted against H^1_l of the complete input, and trains both",
    "reconstruction": "6-8: features H^1_m are reconstructed, from a second pass over"
    " the complete input whose result is not detached",
    "padding": "9: padding is attended to everywhere but in BERT",
    "hyper": "11-13: hyper-modality layers with one query map and one output map, a"
    " stream that is normalised in place, positions added to the first scale",
    "generator": "15: a second learnable block, from which H^1_p is read",
    "start": "14: initial values of positions N(0, 1), tokens 0, H^0_p and H^0_hyper 1",
}
#: What may be left out of LNLN, as in Table 4 of the paper, by name.
PARTS = {
    "dmc": "dominant modality correction: H^1_d is H^1_l, whatever is missing",
    "dmml": "dominant-modality based learning: H^1_d, H^1_a and H^1_v are concatenated",
}


@dataclass(frozen=True)
class Variant:
    """Which LNLN: the paper's, the released program's, or one between or beside them.

    Attributes:
        released: those of `RELEASED_CHOICES` that are made as in the released program.
        without: those of `PARTS` that are left out.
    """

    released: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        unknown = (self.released - RELEASED_CHOICES.keys()) | (
            self.without - PARTS.keys()
        )
        if unknown:
            raise SettingsError(_UNKNOWN.format(", ".join(sorted(unknown))))

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read "paper" or "released", with "+CHOICE" and "-PART" in any order.

        Raises:
            SettingsError: it is something else.
        """
        chosen = frozenset(re.findall(r"\+(\w+)", text))
        left_out = frozenset(re.findall(r"-(\w+)", text))
        known = chosen <= RELEASED_CHOICES.keys() and left_out <= PARTS.keys()
        if not known or not re.fullmatch(r"(paper|released)([+-]\w+)*", text):
            raise SettingsError(_UNKNOWN.format(text))
        if text.startswith("released"):
            chosen = chosen.union(RELEASED_CHOICES)
        return cls(chosen, left_out)

    @property
    def fully_released(self) -> bool:
        """Whether it is the released program's network and nothing else."""
        return self.released == RELEASED_CHOICES.keys() and not self.without

    def __str__(self) -> str:
        """What `parse` reads, in one order for equal variants."""
        left_out = "".join(f"-{name}" for name in PARTS if name in self.without)
        if self.released == RELEASED_CHOICES.keys():
            return f"released{left_out}"
        chosen = (f"+{name}" for name in RELEASED_CHOICES if name in self.released)
        return f"paper{''.join(chosen)}{left_out}"

    def __format__(self, form: str) -> str:
        return format(str(self), form)


_UNKNOWN = (
    "variant {!r} is unknown; it is 'paper' or 'released', then '+CHOICE' for some of "
    + ", ".join(sorted(RELEASED_CHOICES))
    + " and '-PART' for some of "
    + ", ".join(sorted(PARTS))
)

#: How the reported epoch is chosen, and what every output says about it.
SELECTIONS = {
    "validation": "best epoch by validation MAE, mean over the validation rates",
    "paper": "peak epoch per metric on the TEST split at r = 0.5 (the rule behind the"
    " paper's numbers, known from the released program; optimistic, since the test"
    " labels choose the epoch)",
    "released": "as 'paper', on the released masks, always all epochs; epoch 1 counts"
    " as a best so far without being saved",
}
#: How training corrupts, and how the learning rate runs.
MASKS = {
    "redrawn": "new rates and new masks in every epoch",
    "released": "rates and masks drawn once and kept for all epochs",
    "realised": "as redrawn; the completeness to learn is the share of words that is"
    " left, not 1 - r (the paper)",
    "none": "no data are missing in training (Table 4)",
    "mixed": "as redrawn; in half of the utterances words are replaced by others, too,"
    " and the completeness to learn is the share that is neither erased nor replaced",
}
SCHEDULES = {
    "steps": "per step: linear warm-up, then a cosine to zero",
    "released": "per epoch, from learning rate 0 in epoch 1",
    "constant": "the peak throughout, as most compared methods have it",
}
