"""Measures the cost of reading frames from archives instead of folders.

    python -m benchmarks.bench_archives

- *lists*: for a tar and a zip of 400,000 small members each, in fresh processes: seconds and memory
  to list the archive and store its list, to read that list again, and to find 400,000 frames in it.
  Memory is the process's peak minus its memory before.
- *build*: builds of the same frames from folders and from BEDLAM's tars, one per scene, in this
  process; the builds take turns (see :func:`refit_shard.loaders.measure.repeats.interleaved`).
"""

import io
import json
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.build_cases import cached_tree, request, run_build
from benchmarks.command import chosen, command_line, keep
from benchmarks.harness import REPOSITORY, machine, markdown_table, memory, peak_memory
from benchmarks.trees import Tree
from refit_shard.converter.archives.find import find_packed
from refit_shard.loaders.measure.repeats import Spread, interleaved, ratios, spread
from refit_shard.shards_spec.storage.folder import open_folder

PACKAGES = ("numpy", "pyarrow", "opencv-python-headless", "kornia_rs")
OVER_FILES = 0.95


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the run."""

    members: int = 400_000
    frames: int = 240
    samples_per_shard: int = 256
    rounds: int = 5


QUICK = Settings(members=300, frames=4, samples_per_shard=16, rounds=1)


# ---------------------------------------------------------------------------------------- lists


def member_names(count: int) -> list[str]:
    """Names of members, as long as BEDLAM's."""
    scene = "20221010_3-10_500_batch01hand_zoom_suburb_d_6fps/png"
    return [f"{scene}/seq_{i // 50:06d}/seq_{i // 50:06d}_{i % 50:04d}.png" for i in range(count)]


def make_archive(path: Path, count: int) -> None:
    """Write an archive of ``count`` members of 100 bytes."""
    path.parent.mkdir(parents=True)
    data = bytes(100)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in member_names(count):
                archive.writestr(zipfile.ZipInfo(name), data)
        return
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in member_names(count):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def find_all(root: Path, count: int) -> dict[str, float]:
    """Find all frames below a root; returns the seconds and bytes of memory that this took."""
    names = member_names(count)
    before = memory()
    begin = time.perf_counter()
    found = find_packed(open_folder(root), names, open_folder(root / "lists"), keep=True)
    seconds = time.perf_counter() - begin
    if len(found) != count:
        raise RuntimeError(f"found {len(found)} of {count} frames")
    return {"seconds": seconds, "bytes": peak_memory() - before}


def in_a_fresh_process(root: Path, count: int) -> dict[str, float]:
    """:func:`find_all` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.bench_archives", "--find", str(root), str(count)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure_lists(settings: Settings, folder: Path) -> dict[str, Any]:
    """Measure listing each archive, and reading the stored list."""
    measured: dict[str, Any] = {}
    for suffix in (".tar", ".zip"):
        root = folder / f"list{suffix}"
        shutil.rmtree(root, ignore_errors=True)
        archive = root / f"x{suffix}"
        make_archive(archive, settings.members)
        first = in_a_fresh_process(root, settings.members)
        again = in_a_fresh_process(root, settings.members)
        (kept,) = (root / "lists").iterdir()
        measured[suffix[1:]] = {
            "archive_bytes": archive.stat().st_size,
            "list_bytes": kept.stat().st_size,
            "made": first,
            "used": again,
        }
        shutil.rmtree(root)
    return measured


# ---------------------------------------------------------------------------------------- build


def pack(tree: Tree, folder: Path) -> Tree:
    """The same dataset with a tar for each scene."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for scene in sorted(tree.root.iterdir()):
        with tarfile.open(folder / f"{scene.name}.tar", "w") as tar:
            tar.add(scene, scene.name)
    return replace(tree, root=folder)


def measure_builds(settings: Settings, cache: Path) -> dict[str, Any]:
    """Measure samples/s of builds from tars and from files."""
    files = cached_tree(cache, settings.frames)
    tars = pack(files, cache / "archives-tree")

    def rate(tree: Tree) -> float:
        out = cache / "archives-out"
        wanted = request(tree, out, workers=0, samples_per_shard=settings.samples_per_shard)
        return tree.rows / run_build(wanted).wall

    cases: dict[str, Callable[[], float]] = {
        "files": partial(rate, files),
        "tars": partial(rate, tars),
    }
    rates = interleaved(cases, settings.rounds)
    shutil.rmtree(tars.root)
    return {
        "samples_per_second": {name: asdict(spread(values)) for name, values in rates.items()},
        "tars_over_files": asdict(ratios(rates["tars"], rates["files"])),
    }


def run(settings: Settings, cache: Path) -> dict[str, Any]:
    """Run all measurements."""
    cache.mkdir(parents=True, exist_ok=True)
    return {
        "benchmark": "bench_archives",
        "machine": machine(PACKAGES),
        "settings": asdict(settings),
        "lists": measure_lists(settings, cache / "archives-lists"),
        "build": measure_builds(settings, cache),
    }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = [
        [
            f"{kind}, {how}",
            f"{one[how]['seconds']:.2f}",
            f"{one[how]['bytes'] / 1e6:.0f}",
            f"{one['list_bytes'] / 1e6:.1f}",
        ]
        for kind, one in results["lists"].items()
        for how in ("made", "used")
    ]
    build = results["build"]
    rates = [[name, str(Spread(**one))] for name, one in build["samples_per_second"].items()]
    return "\n".join(
        [
            f"{results['settings']['members']} members; {results['machine']['cpu']}.",
            "",
            markdown_table(["list of", "s", "memory, MB", "kept, MB"], rows),
            "",
            markdown_table(["build from", "samples/s"], rates),
            "",
            f"Tars over files: {Spread(**build['tars_over_files'])}, at least {OVER_FILES:g}.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_archives", __doc__)
    parser.add_argument("--members", type=int, help="members of each archive (default 400,000)")
    parser.add_argument("--rounds", type=int, help="repeats of the builds (default 5)")
    parser.add_argument("--find", nargs=2, metavar=("ROOT", "COUNT"), help="used internally")
    args = parser.parse_args(argv)
    if args.find:
        print(json.dumps(find_all(Path(args.find[0]), int(args.find[1]))))
        return 0
    settings = chosen(args, QUICK, Settings(), ("members", "rounds"))
    results = run(settings, args.cache)
    print(report(results))
    keep(args, "bench_archives", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
