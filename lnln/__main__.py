"""`python -m lnln` is the `lnln` command."""

import sys

from lnln.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
