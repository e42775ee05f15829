"""One module per command: ``add_parser(commands)`` declares its arguments, ``run(args)`` runs it.

Commands import other modules inside their functions, so that ``--help`` loads none of them.
"""

import argparse
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Subparsers: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subparsers = argparse._SubParsersAction

__all__ = ["Subparsers"]
