"""P-RMF: a Gaussian for each modality, and a proxy modality that trusts the surest.

Zhu et al., "Proxy-Driven Robust Multimodal Sentiment Analysis with Incomplete Data",
ACL 2025. Built on LNLN's program. The text of the paper was not at hand: names are
those of its abstract and framework figure, and what is computed is what the authors'
program computes. Followed, since published numbers rest on it: the gradient through the
proxy is reversed though there is no adversary (the figure shows none), so the means
climb the sentiment loss; the reconstructors keep their first, random weights; the
injection's layers are one layer, applied several times; targets are not detached; text
encoder and injection learn 20 times slower. Otherwise than the program: padding is
hidden from the embeddings (`masked`), and the weights are a softmax that does not
overflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from lnln.data.batch import MODALITIES, Batch, valid_positions
from lnln.models.blocks.answers import task_loss
from lnln.models.blocks.layers import attend, reverse_gradient
from lnln.models.lnln import LNLNConfig, ModalityEmbedding
from lnln.models.method import (
    Method,
    ModelConfig,
    Optimisation,
    Prediction,
    Recipe,
    Step,
)
from lnln.models.released import start_as_released


@dataclass(frozen=True)
class PRMFConfig(ModelConfig):
    """Sizes and weights of P-RMF (values for MOSI).

    Attributes:
        tokens: of each modality that are kept.
        prefix: learnt tokens in front of each modality, at least `tokens`.
        width: D.
        heads, head_width, ffn_width: of all Transformer layers.
        depth: layers of every encoder.
        injections: how often the proxy takes from the modalities.
        injection_dropout, head_dropout: there.
        reversal: factor of the gradient through the proxy; 1 for the plain gradient.
        masked: hide padding from the embeddings; False as in the program.
        reconstruction, divergence: weights of L_rec and L_kl.
        slow_share: learning rate of text encoder and injection as a share of the rest.
    """

    method: ClassVar[str] = "p_rmf"
    tokens: int = 8
    prefix: int = 8
    width: int = 128
    heads: int = 8
    head_width: int = 64
    ffn_width: int = 128
    depth: int = 2
    injections: int = 4
    injection_dropout: float = 0.5
    head_dropout: float = 0.5
    reversal: float = -1.0
    masked: bool = True
    reconstruction: float = 0.1
    divergence: float = 0.5
    slow_share: float = 0.05

    def blocks(self) -> LNLNConfig:
        """The configuration of the blocks that P-RMF shares with LNLN."""
        shared = ("width", "heads", "head_width", "ffn_width")
        values = {name: getattr(self, name) for name in shared}
        return LNLNConfig(tokens=self.prefix, embedding_depth=self.depth, **values)


class Gaussian(nn.Module):
    """The encoder of a modality: the mean and the log-variance of every feature."""

    def __init__(self, config: PRMFConfig) -> None:
        super().__init__()
        d = config.width
        self.project = nn.Linear(d, d)
        self.encoder = config.blocks().encoder_of(config.tokens, config.depth)
        self.mean = nn.Linear(d, d)
        self.log_variance = nn.Linear(d, d)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, d) h_m to (B, T, d) mu_m and log sigma_m^2, in full precision."""
        e = self.encoder(self.project(x).relu())
        return self.mean(e).float(), self.log_variance(e).float()


class Decoder(nn.Module):
    """The decoder of a modality; only the loss reads what it gives."""

    def __init__(self, config: PRMFConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.width, config.width)
        self.encoder = config.blocks().encoder_of(config.tokens, config.depth)
        self.restore = nn.Linear(config.width, config.width)

    def forward(self, z: Tensor) -> Tensor:
        """(B, T, d) sample z_m to (B, T, d) guess of the complete features."""
        guess: Tensor = self.restore(self.encoder(self.project(z).relu()))
        return guess


class CrossModalAttention(nn.Module):
    """What the proxy finds in one modality, with a single head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_proxy = nn.LayerNorm(width)
        self.norm_modality = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.Linear(width, width)

    def forward(self, proxy: Tensor, modality: Tensor) -> Tensor:
        """(B, T, d) queries and (B, S, d) keys and values to (B, T, d)."""
        y = self.norm_modality(modality)
        q, k, v = self.to_q(self.norm_proxy(proxy)), self.to_k(y), self.to_v(y)
        found = attend(q[:, None], k[:, None], v[:, None])[:, 0]
        taken: Tensor = self.to_out(found)
        return taken


class Injection(nn.Module):
    """Dynamic cross-modal injection: the proxy takes from each modality by its weight.

    x <- o + dropout(Linear(LN o)), o = x + sum over m of w_m * attention_m(x, h_m).
    """

    def __init__(self, config: PRMFConfig) -> None:
        super().__init__()
        d = config.width
        self.attention = nn.ModuleDict({m: CrossModalAttention(d) for m in MODALITIES})
        self.norm = nn.LayerNorm(d)
        self.mix = nn.Linear(d, d)
        self.dropout = nn.Dropout(config.injection_dropout)

    def forward(
        self, x: Tensor, weights: dict[str, Tensor], embedded: dict[str, Tensor]
    ) -> Tensor:
        """(B, T, d) stream, w_m and h_m to the next (B, T, d) stream."""
        found = (weights[m] * self.attention[m](x, embedded[m]) for m in MODALITIES)
        o = x + sum(found)
        mixed: Tensor = o + self.dropout(self.mix(self.norm(o)))
        return mixed


def certainty(log_variances: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights w_m: a softmax over the modalities of 1 / sigma_m.

    Args:
        log_variances: {m: (B, T, d)} log sigma_m^2.

    Returns:
        {m: (B, T, d)}, which sum to 1 over m.
    """
    precisions = torch.stack([(-x / 2).exp() for x in log_variances.values()])
    return dict(zip(log_variances, precisions.softmax(dim=0), strict=True))


def gaussian_divergence(
    mean: Tensor,
    log_variance: Tensor,
    other_mean: Tensor | float = 0.0,
    other_log_variance: Tensor | None = None,
) -> Tensor:
    """KL(q || p) of Gaussians, a mean over all entries; p is N(0, 1) by default.

    Args:
        mean, log_variance: of q, any shape.
        other_mean, other_log_variance: of p, the same shape.
    """
    other = torch.zeros_like(mean) if other_log_variance is None else other_log_variance
    gap = log_variance - other
    away = (mean - other_mean).square() * (-other).exp()
    return (gap.exp() + away - 1 - gap).mean() / 2


class PRMF(Method):
    """The network; arguments as of `Method`."""

    shareable = True
    config: PRMFConfig
    config_type = PRMFConfig
    last = "head.3"

    def __init__(
        self, config: PRMFConfig, architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__(config, architecture)
        blocks = config.blocks()
        shapes = {
            "l": (self.text_encoder.width, config.text_length),
            "a": (config.audio_width, config.audio_length),
            "v": (config.vision_width, config.vision_length),
        }
        self.embedding = nn.ModuleDict(
            {m: ModalityEmbedding(blocks, *shapes[m]) for m in MODALITIES}
        )
        self.gaussian = nn.ModuleDict({m: Gaussian(config) for m in MODALITIES})
        self.decoder = nn.ModuleDict({m: Decoder(config) for m in MODALITIES})
        self.injection = Injection(config)
        self.head = nn.Sequential(
            nn.Linear(config.width, config.width),
            nn.ReLU(),
            nn.Dropout(config.head_dropout),
            nn.Linear(config.width, 1),
        )
        self.reconstructor = nn.ModuleDict(
            {m: blocks.encoder_of(config.tokens, config.depth) for m in MODALITIES}
        )
        # No optimizer of the program has them: L_rec teaches the embeddings alone.
        self.reconstructor.requires_grad_(False)
        start_as_released(self)

    def trim(self, batch: Batch) -> Batch:
        """Cut padding; where it is attended to, pad to the model's lengths instead."""
        c = self.config
        if c.masked:
            return batch.trim()
        return batch.pad(c.text_length, c.audio_length, c.vision_length)

    def embed(self, *versions: Batch) -> list[dict[str, Tensor]]:
        """{m: (B, T, d)} features h_m of each version of a batch.

        Rows do not see each other, so all versions are encoded in one pass.
        """
        found = {}
        for m in MODALITIES:
            x = torch.cat([version.sequence(m) for version in versions])
            lengths = torch.cat([version.lengths(m) for version in versions])
            mask = valid_positions(lengths, x.shape[1]) if self.config.masked else None
            if m == "l":
                x = self.text_encoder(x, lengths)
            kept = self.embedding[m](x, mask)[:, : self.config.tokens]
            found[m] = kept.chunk(len(versions))
        return [{m: found[m][i] for m in MODALITIES} for i in range(len(versions))]

    def forward(self, batch: Batch, complete: Batch | None = None) -> Prediction:
        """Predict from (corrupted) utterances; `complete`, their U^0, is for losses."""
        if complete is None:
            (h,) = self.embed(batch)
        else:
            h, targets = self.embed(batch, complete)
        gaussians = {m: self.gaussian[m](h[m]) for m in MODALITIES}
        means = {m: gaussians[m][0] for m in MODALITIES}
        log_variances = {m: gaussians[m][1] for m in MODALITIES}
        weights = certainty(log_variances)
        proxy = torch.stack([weights[m] * means[m] for m in MODALITIES]).sum(dim=0)
        x = reverse_gradient(proxy, -self.config.reversal)
        for _ in range(self.config.injections):
            x = self.injection(x, weights, h)
        answer = self.head(x.mean(dim=1)).squeeze(-1)
        extras: dict[str, Any] = {
            "embedded": h,
            "means": means,
            "log_variances": log_variances,
            "weights": weights,
            "proxy": proxy,
            "injected": x,
        }
        if complete is not None:
            extras["targets"] = targets
            extras["decoded"] = {m: self._decode(m, *gaussians[m]) for m in MODALITIES}
            extras["rebuilt"] = {m: self.reconstructor[m](h[m]) for m in MODALITIES}
        return Prediction(answer, extras)

    def _decode(self, modality: str, mean: Tensor, log_variance: Tensor) -> Tensor:
        # Drawn on the CPU, so that every device trains with the same noise.
        noise = torch.randn(mean.shape).to(mean.device)
        guess: Tensor = self.decoder[modality](mean + (log_variance / 2).exp() * noise)
        return guess

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The squared error, L_rec and L_kl, and their weighted sum."""
        output = step.forward(step.erased.batch, step.complete)
        terms = {
            "sentiment": task_loss(output.answer, step.labels, mse_loss),
            "reconstruction": feature_loss(output.extras),
            "divergence": divergence_loss(output.extras),
        }
        c = self.config
        weighted = c.reconstruction * terms["reconstruction"]
        weighted = weighted + c.divergence * terms["divergence"]
        return terms | {"total": terms["sentiment"] + weighted}

    def recipe(self, train: Optimisation) -> Recipe:
        """AdamW with two rates: text encoder and injection learn slower."""
        slow: list[Tensor] = []
        rest: list[Tensor] = []
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                is_slow = name.startswith(("text_encoder.", "injection."))
                (slow if is_slow else rest).append(parameter)
        rates = (train.learning_rate * self.config.slow_share, train.learning_rate)
        groups = [
            {"params": params, "lr": rate, "weight_decay": train.weight_decay}
            for params, rate in zip((slow, rest), rates, strict=True)
        ]
        return Recipe(groups, clip_norm=train.clip)


def feature_loss(parts: dict[str, Any]) -> Tensor:
    """L_rec: how far the fixed reconstructors are from the complete features.

    Args:
        parts: {m: (B, T, d)} "rebuilt" and "targets".
    """
    pairs = [(parts["rebuilt"][m], parts["targets"][m]) for m in MODALITIES]
    return torch.stack([mse_loss(r.float(), c.float()) for r, c in pairs]).mean()


def divergence_loss(parts: dict[str, Any]) -> Tensor:
    """L_kl: each Gaussian's own terms, and how far the modalities are from each other.

    Args:
        parts: {m: (B, T, d)} "means", "log_variances", "decoded" and "targets".

    Returns:
        A third of the sum of nine terms: for each modality the squared error of the
        decoder and KL to N(0, 1), then KL(v || l), KL(a || l) and KL(a || v).
    """
    q = {m: (parts["means"][m], parts["log_variances"][m]) for m in MODALITIES}
    decoded, targets = parts["decoded"], parts["targets"]
    terms = [mse_loss(decoded[m].float(), targets[m].float()) for m in MODALITIES]
    terms += [gaussian_divergence(*q[m]) for m in MODALITIES]
    terms += [gaussian_divergence(*q[m], *q[n]) for m, n in ("vl", "al", "av")]
    return torch.stack(terms).sum() / 3
