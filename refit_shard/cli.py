"""The command line. Commands import heavy modules only when they run, so ``--help`` is quick."""

import argparse
import difflib
import io
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from refit_shard import __version__
from refit_shard.commands import (
    add_labels,
    bench,
    build,
    doctor,
    export,
    extract_frames,
    import_annotations,
    import_occluders,
    info,
    preview,
    query,
    report,
    show,
    simulate,
    subset_3dpw,
    verify,
)
from refit_shard.shards_spec.errors import RefitShardError, UsageError, explain
from refit_shard.shards_spec.storage.object_store import asked_once
from refit_shard.shards_spec.storage.paths import absolute

INTERRUPTED = 130
DEBUG = "REFIT_SHARD_DEBUG"
# Modules (by import name) that the plain install lacks, and the extra that installs each.
BUILD_MODULES = {"PIL", "cv2", "kornia_rs", "ray", "rich", "webdataset"}
_EXTRAS = {
    **dict.fromkeys(BUILD_MODULES, "build"),
    **dict.fromkeys(("cdflib", "h5py", "scipy"), "import"),
    "av": "videos",
    "duckdb": "query",
    **dict.fromkeys(("jinja2", "markupsafe", "vl_convert"), "report"),
}

DESCRIPTION = """\
Training data for human mesh recovery: datasets become pre-cropped shards.

  refit-shard import-annotations SOURCE --out FILE.npz   downloaded annotations -> npz
  refit-shard doctor                       is the data folder ready for a build?
  refit-shard build --dataset bedlam       images and annotations -> data/shards/bedlam
  refit-shard add-labels data/shards/bedlam my.npz --keep contact   add labels of your own
  refit-shard verify data/shards/bedlam    read the shards again and check everything
  refit-shard info data/shards             rows, bytes, box sizes
  refit-shard preview data/shards/bedlam --out sheet.png   crops with skeletons
  refit-shard report data/shards --out report.html   distributions, duplicates, crops
  refit-shard query data/shards --where "scale > 0.5" --count   count rows
  refit-shard show data/shards/bedlam KEY  one crop, its skeleton and its labels
  refit-shard export data/shards/bedlam --format json --out DIR   formats of other readers
  refit-shard simulate config.yaml --cache 200GB   bytes that a training run would download
  refit-shard bench config.yaml --gpu 1000   the loader's speed on this machine
  refit-shard extract-frames --dataset h36m   the frames that an npz names, from videos
  refit-shard subset-3dpw                  crops of ReFit's 3DPW validation subset
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="refit-shard",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit codes: 0 success, 1 an error or a problem in the data, 2 wrong arguments, 130 "
        "interrupted",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (
        doctor,
        build,
        add_labels,
        verify,
        info,
        preview,
        report,
        query,
        show,
        simulate,
        bench,
        export,
        import_annotations,
        import_occluders,
        extract_frames,
        subset_3dpw,
    ):
        module.add_parser(commands)
    for command in commands.choices.values():
        command.set_defaults(parser=command)
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; what a command does not know is answered with its usage and the nearest."""
    args, unknown = make_parser().parse_known_args(argv)
    if unknown:
        parser: argparse.ArgumentParser = args.parser
        options = parser.format_usage().replace("[", " ").replace("]", " ").split()
        near = difflib.get_close_matches(unknown[0].partition("=")[0], options, 1, 0.7)
        hint = f" (did you mean {near[0]}?)" if near else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return args


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. An error is printed as one line on stderr."""
    _settle_streams()
    try:
        args = _parse(argv)
    except SystemExit as ended:  # argparse printed help, or an error in the arguments
        if ended.code == 0 and _outcome(_flush):
            return RefitShardError.exit_code
        raise
    signal.signal(signal.SIGTERM, _terminate)
    with asked_once():
        code = _outcome(lambda: _run(args))
    flushed = _outcome(_flush)
    return code or flushed


def _run(args: argparse.Namespace) -> int:
    absolute(".")  # raises if the current folder was deleted: libraries would abort the process
    try:
        code: int = args.run(args)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise UsageError(
            f"{args.command} needs modules that are not installed ({error}): "
            f"pip install 'refit-shard[{extra}]'"
        ) from error
    return code


def _flush() -> int:
    """Flush stdout; returns exit code 0."""
    try:
        if sys.stdout is not None:  # None if the process was started with stdout closed
            sys.stdout.flush()
    except OSError:
        from refit_shard.console import flush

        flush()  # fails again, and raises an OutputError with the reason
    return 0


def _settle_streams() -> None:
    """Open closed standard streams on /dev/null, and let stdout print any name.

    If a standard stream is closed, a file opened later gets its descriptor and with it the output.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _outcome(work: Callable[[], int]) -> int:
    """Do some work and return its exit code; an error is printed as one line."""
    try:
        return work()
    except RefitShardError as error:
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        _say(_unforeseen(error))
        return RefitShardError.exit_code


def _unforeseen(error: Exception) -> str:
    """The line for an error that is not a ``RefitShardError``."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, (MemoryError, RecursionError)):
        return f"the input is too large or too deep{_memory_limit()}: {error}"
    if isinstance(error, OSError) and error.errno is not None:
        return str(explain(error, str(error.filename or "refit-shard")))
    if isinstance(error, ImportError):
        return f"a module cannot be imported{_memory_limit()}: {error}"
    if isinstance(error, UnicodeError):
        return f"a name or text is not UTF-8: {error}"
    return (
        f"internal error{_memory_limit()}: {said:.500}; please report this with the traceback that "
        f"{DEBUG}=1 shows"
    )


def _memory_limit() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return ""
    return f" (the address space is limited to {limit / 1e9:.1f} GB: ulimit -v)"


def _say(line: str) -> None:
    try:
        from refit_shard.console import say

        say(f"refit-shard: {line}", error=True)
    except (MemoryError, ImportError):  # too little memory to import the console module
        print(f"refit-shard: {line!r}", file=sys.stderr)
