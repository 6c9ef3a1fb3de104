"""The paper: its printed numbers, its released program, and how to repeat it."""
