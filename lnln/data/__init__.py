"""What comes in: batches, the simulated corpus, files of features."""
