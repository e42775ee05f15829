"""Feeds files to a parser: ``python -m tests.hostile.child MODULE FOLDER``, for :mod:`batch`.

``MODULE.parse`` gets the path of each file, the first of which is whole. Every line is the name of
a file and how it ended; a crash of the interpreter leaves the name of the file that did it.
"""

import importlib
import resource
import sys
from pathlib import Path

from refit_shard.shards_spec.errors import RefitShardError
from tests.hostile.batch import MEMORY


def limit_memory() -> None:
    """Let the process take no more than MEMORY beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def say(text: str) -> None:
    """Write at once: the process may end here."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main(module: str, folder: str) -> None:
    """Parse all files, in order of their names."""
    parse = importlib.import_module(module).parse
    for number, path in enumerate(sorted(Path(folder).iterdir())):
        say(f"{path.name} ")
        try:
            parse(path)
        except RefitShardError as error:
            say(f"{type(error).__name__}\n")
        except Exception as error:  # not ours: the test fails with it
            say(f"BARE {type(error).__name__}: {str(error)[:200]!r}\n")
        else:
            say("read\n")
        if number == 0:  # all is imported and warm
            limit_memory()


if __name__ == "__main__":
    main(*sys.argv[1:])
