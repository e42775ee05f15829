"""Feeds files to a parser: ``python -m tests.hostile.child MODULE FOLDER``, for :mod:`batch`.

``MODULE.parse`` is called with the path of each file, the first of which is undamaged. Each printed
line is the name of a file and its outcome; after a crash the last line names the file that caused
it.
"""

import importlib
import resource
import sys
from pathlib import Path

from refit_shard.shards_spec.errors import RefitShardError
from tests.hostile.batch import MEMORY


def limit_memory() -> None:
    """Limit the process's address space to MEMORY bytes more than it uses now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def say(text: str) -> None:
    """Print without buffering, because the process may crash next."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main(module: str, folder: str) -> None:
    """Parse all files in the order of their names."""
    parse = importlib.import_module(module).parse
    for number, path in enumerate(sorted(Path(folder).iterdir())):
        say(f"{path.name} ")
        try:
            parse(path)
        except RefitShardError as error:
            say(f"{type(error).__name__}\n")
        except Exception as error:  # any other error makes the test fail
            say(f"BARE {type(error).__name__}: {str(error)[:200]!r}\n")
        else:
            say("read\n")
        if number == 0:  # everything is imported now
            limit_memory()


if __name__ == "__main__":
    main(*sys.argv[1:])
