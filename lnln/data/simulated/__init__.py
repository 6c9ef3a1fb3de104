"""The simulated corpus, whose best possible answer is known."""
