"""What a forward pass of LNLN gives. Notation as in `lnln.models.components`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Reconstruction:
    """What L_rec compares, per modality "l", "a", "v".

    Attributes:
        estimate: (B, T_m, d_m) from the corrupted input.
        target: (B, T_m, d_m) U^0_m; for language the encoder's features of the
            complete text, without gradient. Released code: both are (B, T, d), an
            estimate from H^1_m of the corrupted input of that of the complete one.
        mask: (B, T_m) bool, True at real positions.
    """

    estimate: Tensor
    target: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Output:
    """What a forward pass gives.

    Attributes:
        sentiment: (B,) prediction y-hat.
        completeness: (B,) w.
        proxy_logits, language_logits: (B, T, 2) discriminator on H^1_p (gradient
            reversed) and on H^1_l (detached): only D and the generator's side play.
            Released code: on H^1_d and on H^1_l of the complete input.
        embedded: {"l" | "a" | "v": (B, T, d) H^1_m}.
        proxy: (B, T, d) H^1_p.
        dominants: (H^1_d, H^2_d, H^3_d), each (B, T, d).
        hyper: (B, T, d) H^3_hyper.
        fused: (B, 1 + T, d) output of the fusion Transformer.
        reconstructions: per modality where a complete batch was given, else empty.
    """

    sentiment: Tensor
    completeness: Tensor
    proxy_logits: Tensor
    language_logits: Tensor
    embedded: dict[str, Tensor]
    proxy: Tensor
    dominants: tuple[Tensor, ...]
    hyper: Tensor
    fused: Tensor
    reconstructions: dict[str, Reconstruction]
