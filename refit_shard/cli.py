"""The entry point. Each command imports what it needs when it runs, so ``--help`` is quick."""

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from refit_shard.commands import (
    build,
    doctor,
    import_occluders,
    info,
    preview,
    simulate,
    subset_3dpw,
    verify,
)
from shards_spec.errors import RefitShardError

INTERRUPTED = 130

DESCRIPTION = """\
Training data for human mesh recovery: data sets become pre-cropped shards.

  refit-shard doctor                       is the data folder ready?
  refit-shard build --dataset bedlam       images and annotations -> data/shards/bedlam
  refit-shard verify data/shards/bedlam    re-read and check everything
  refit-shard info data/shards             what is there
  refit-shard preview data/shards/bedlam --out sheet.png   crops with skeletons
  refit-shard simulate config.yaml --cache 200GB   what a run would download
  refit-shard subset-3dpw                  the validation subset, pre-cropped
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="refit-shard",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit codes: 0 fine, 1 something was found wrong, 2 wrong use, 130 interrupted",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (
        doctor,
        build,
        verify,
        info,
        preview,
        simulate,
        import_occluders,
        subset_3dpw,
    ):
        module.add_parser(commands)
    return parser


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code. An error of ours is one line on stderr."""
    args = make_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code: int = args.run(args)
    except RefitShardError as error:
        from refit_shard.console import say

        say(f"refit-shard: {error}", error=True)
        return error.exit_code
    except (MemoryError, RecursionError) as error:
        print(f"refit-shard: the input is too large or too deep: {error}", file=sys.stderr)
        return RefitShardError.exit_code
    except KeyboardInterrupt:
        print("refit-shard: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output left: `refit-shard info … | head`
        sys.stderr.close()
        return 0
    return code
