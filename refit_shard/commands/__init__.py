"""One module a command: ``add_parser(commands)`` declares it, ``run(args)`` does it.

Commands import what they need inside ``run``, so that ``--help`` loads none of it.
"""

import argparse
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Subparsers: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subparsers = argparse._SubParsersAction

__all__ = ["Subparsers"]
