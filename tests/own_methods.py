"""A method of one's own as a reader writes it, for the tests: a module outside."""

WORDS = """
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lnln.models.method import Method, ModelConfig, Prediction


@dataclass(frozen=True)
class WordsConfig(ModelConfig):
    method: ClassVar[str] = "my_words:Words"
    width: int = 16


class Words(Method):
    config_type = WordsConfig

    def __init__(self, config, architecture=None):
        super().__init__(config, architecture)
        self.head = nn.Linear(self.text_encoder.width, 1)

    def forward(self, batch):
        text = self.text_encoder(batch.tokens, batch.token_lengths)
        return Prediction(self.head(text[:, 0]).squeeze(-1), {})

    def losses(self, step):
        output = step.forward(step.erased.batch)
        return {"total": (output.sentiment - step.labels).abs().mean()}
"""
