"""The four terms of LNLN's training objective (paper, overall objective)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from lnln.models.config import LossWeights

if TYPE_CHECKING:
    from lnln.models.output import Output, Reconstruction


@dataclass(frozen=True)
class Losses:
    """Each term as a scalar tensor, and their weighted sum.

    Attributes:
        total: alpha L_cc + beta L_adv + gamma L_rec + delta L_sp.
        completeness: L_cc. adversarial: L_adv. reconstruction: L_rec.
        sentiment: L_sp.
    """

    total: Tensor
    completeness: Tensor
    adversarial: Tensor
    reconstruction: Tensor
    sentiment: Tensor


def adversarial_loss(proxy_logits: Tensor, language_logits: Tensor) -> Tensor:
    """L_adv: two-class cross-entropy of the discriminator over all tokens.

    The paper's eq. 10 prints the positive term only; both classes are needed for a
    game (and used in the released code).

    Args:
        proxy_logits, language_logits: (B, T, 2); true classes 1 and 0.

    Returns:
        Scalar mean over the 2 B T tokens.
    """
    logits = torch.cat([proxy_logits, language_logits]).flatten(0, 1)
    target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    target[: len(logits) // 2] = 1
    return cross_entropy(logits, target)


def reconstruction_loss(reconstructions: dict[str, Reconstruction]) -> Tensor:
    """L_rec: mean squared error over real positions, averaged over modalities.

    The paper writes a sum of squared norms; gamma = 0.1 refers to the released
    code's mean, so a mean is taken here too.

    Args:
        reconstructions: per modality; empty gives 0.

    Returns:
        Scalar.
    """
    terms = []
    for part in reconstructions.values():
        error = (part.estimate - part.target).pow(2).mean(dim=-1)
        terms.append((error * part.mask).sum() / part.mask.sum())
    return torch.stack(terms).mean() if terms else torch.zeros(())


def lnln_losses(
    output: Output, labels: Tensor, completeness: Tensor, weights: LossWeights
) -> Losses:
    """All terms of a training step.

    Args:
        output: of the corrupted batch.
        labels: (B,) sentiment y.
        completeness: (B,) target 1 - r_l.
        weights: alpha, beta, gamma, delta.

    Returns:
        `Losses`.
    """
    l_cc = mse_loss(output.completeness, completeness)
    l_adv = adversarial_loss(output.proxy_logits, output.language_logits)
    l_rec = reconstruction_loss(output.reconstructions).to(l_cc.device)
    l_sp = mse_loss(output.sentiment, labels)
    total = (
        weights.alpha * l_cc
        + weights.beta * l_adv
        + weights.gamma * l_rec
        + weights.delta * l_sp
    )
    return Losses(total, l_cc, l_adv, l_rec, l_sp)
