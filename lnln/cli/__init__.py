"""The `lnln` command."""

import argparse
from typing import TypeAlias

#: What commands are added to.
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
