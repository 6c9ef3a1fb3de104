"""The named choices that settings are made of, and what each means."""

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

#: How the reported epoch is chosen, and what every output says about it.
SELECTIONS = {
    "validation": "best epoch by validation MAE, mean over the validation rates",
    "paper": "peak epoch per metric on the TEST split at r = 0.5 (the paper's rule;"
    " optimistic, since the test labels choose the epoch)",
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
