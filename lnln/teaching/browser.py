"""The trained model on a page: it runs in the reader's browser, through ONNX.

The markup loads nothing until the reader asks for it. Then it takes the files that
`make book` puts beside the pages: onnxruntime-web and the exported model, which answers
with a distribution. The exact posterior under it is computed in JavaScript from the
constants of `lnln.data.simulated.corpus`.
"""

from __future__ import annotations

from typing import Any

from lnln.data.batch import CLS, SEP, UNK, Batch
from lnln.data.simulated import corpus as c
from lnln.data.simulated.lexicon import lexicon, transcripts
from lnln.missing.erasing import split_uniforms
from lnln.teaching.explorer import FOLDER, plain, script_text

#: Where the files lie, seen from a page of the book.
FILES = "../_static/browser/"

_PAGE = """<div id="explorer-{key}"></div>
<script type="module">
{module}
lab(document.getElementById("explorer-{key}"), {data},
  new URL("{files}", document.baseURI));
</script>"""


class BrowserLab:
    """A page's figure in which the model itself answers.

    Args:
        batch: utterances of the simulated corpus to choose from, complete.
        key: name of the figure, one of its kind on the page.
        weight: what is loaded, in MB, for the reader to know beforehand.
        seed: mask seed of the draws behind the sliders for voice and face.
    """

    def __init__(self, batch: Batch, *, key: str, weight: float, seed: int = 0) -> None:
        self.key = key
        self.data: dict[str, Any] = {
            "corpus": corpus_facts(),
            "grid": plain(c.GRID, 1),
            "utterances": _utterances(batch, seed),
            "weight": weight,
        }

    def _repr_html_(self) -> str:
        parts = (FOLDER / f"{name}.js" for name in ("common", "utterance", "_lab"))
        return _PAGE.format(
            key=self.key,
            module="".join(part.read_text("utf-8") for part in parts),
            data=script_text(self.data),
            files=FILES,
        )

    def __repr__(self) -> str:
        return f"BrowserLab(key={self.key!r})"


def corpus_facts() -> dict[str, Any]:
    """What the exact posterior needs to know of how the corpus is made."""
    words = lexicon()
    facts = {
        "vocab": list(words.vocab),
        "opinion": words.opinion,
        "valence": words.valence,
        "negators": words.negators,
        "cls": CLS,
        "sep": SEP,
        "unk": UNK,
        "max_words": c.SIZES["mini"].max_words,
        "prior": c.prior("train"),
        "spread": c.VALENCE_SPREAD,
        "negation": c.NEGATION,
        "p_negator": c.P_NEGATOR,
        "p_irony": c.P_IRONY,
        "audio_effect": c.AUDIO_EFFECT,
        "audio_offset": c.AUDIO_OFFSET_SD,
        "audio_noise": c.AUDIO_NOISE_SD,
        "direction": c.VISION_DIRECTION,
        "vision_effect": c.VISION_EFFECT,
        "vision_noise": c.VISION_NOISE_SD,
        "p_expressive": c.P_EXPRESSIVE,
    }
    plain_facts: dict[str, Any] = plain(facts, 10)
    return plain_facts


def _utterances(batch: Batch, seed: int) -> list[dict[str, Any]]:
    draws = split_uniforms(batch, seed)
    uniforms = {"audio": draws.a, "vision": draws.v}
    found = []
    for i, text in enumerate(transcripts(batch)):
        entry: dict[str, Any] = {"words": text.split()}
        for name, letter in (("audio", "a"), ("vision", "v")):
            size = int(batch.lengths(letter)[i])
            entry[name] = {
                "frames": plain(batch.sequence(letter)[i, :size], 3),
                "draws": plain(uniforms[name][i, :size], 3),
            }
        found.append(entry)
    return found
