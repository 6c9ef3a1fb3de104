"""`python -m lnln` is the `lnln` command."""

import sys

from lnln.cli import main

if __name__ == "__main__":
    sys.exit(main())
