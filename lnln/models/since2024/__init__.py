"""Methods that are newer than the paper, and in none of its tables."""
