"""Commands on a reader's own files: data, prediction."""
