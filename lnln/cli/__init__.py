"""The `lnln` command."""
