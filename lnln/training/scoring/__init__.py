"""How good answers are: metrics, distributions and their read-outs."""
