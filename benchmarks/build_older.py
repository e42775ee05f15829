"""Builds by an older revision of this repository, with its own code, on the same frames."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import REPOSITORY
from benchmarks.trees import Tree

# Calls functions of that revision's benchmarks, whose arguments have not changed since 0.1.0.
_BUILD = """
import sys
from pathlib import Path
from benchmarks.build_cases import request, run_build
from benchmarks.trees import Tree
name, root, npz, out, workers, samples = sys.argv[1:]
tree = Tree(name, Path(root), Path(npz), 0, 0)
wanted = request(tree, Path(out), workers=int(workers), samples_per_shard=int(samples))
print("rate", run_build(wanted).rate)
"""


@contextmanager
def checked_out(revision: str, scratch: Path) -> Iterator[Path]:
    """A temporary git worktree of a revision."""
    folder = scratch / "older"
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", folder, revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", folder], check=True)


def older_rate(
    code: Path, packages: Path | None, tree: Tree, out: Path, workers: int, samples_per_shard: int
) -> float:
    """Samples/s of the older build in a fresh process.

    ``packages``: a folder of packages that it needs besides the installed ones.
    """
    places = [str(code), *([str(packages.resolve())] if packages is not None else [])]
    what = [tree.name, tree.root, tree.npz, out, workers, samples_per_shard]
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, *map(str, what)],
        cwd=code,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout.rpartition("rate ")[2])
