"""The MMSA feature files, and what other programs write in their place."""
