"""The same search for every method's settings: where it looks, and the study itself."""
