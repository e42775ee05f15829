"""One module per command: ``add_parser(commands)`` declares its arguments, ``run(args)`` runs it.

Commands import other modules inside their functions, so that ``--help`` loads none of them.
"""

import argparse
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Subparsers: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subparsers = argparse._SubParsersAction

# An argument parser, or a group of its arguments.
Arguments: TypeAlias = "argparse._ActionsContainer"

__all__ = ["Arguments", "Subparsers", "add_cluster", "add_drawing", "add_path"]


def add_path(arguments: Arguments) -> None:
    """Declare PATH, the dataset or the datasets that a command reads."""
    arguments.add_argument(
        "path",
        metavar="PATH",
        help="folder, URL or name of a dataset, or a folder of datasets",
    )


def add_cluster(arguments: Arguments, work: str) -> None:
    """Declare the processes that do a command's ``work``, and the cluster that they run on."""
    arguments.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help=f"worker processes (default: all cores); 0: {work} in this process, without Ray",
    )
    arguments.add_argument(
        "--address", metavar="auto|ray://…", help="a running Ray cluster (default: start one here)"
    )


def add_drawing(arguments: Arguments, samples: int) -> None:
    """Declare how many samples are drawn, by default ``samples``, which ones, and with what."""
    arguments.add_argument(
        "--n",
        type=int,
        default=samples,
        metavar="N",
        help=f"number of samples to draw (default {samples})",
    )
    arguments.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the choice of samples and of their augmentation (default 0)",
    )
    arguments.add_argument(
        "--occluders",
        metavar="FILE",
        help="cut-outs to paste (default data/dataset_extras/occluders.arrow)",
    )
