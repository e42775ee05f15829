"""Measures how fast annotations are converted to an npz, and estimates minutes for full datasets.

    python -m benchmarks.bench_import

Annotations of each kind are generated in the layout of the dataset's site and imported as by the
command, in turns (see :func:`refit_shard.loaders.measure.repeats.interleaved`), with one reading
process. Rates count rows of the npz, which are one in ten of the rows read for MPI-INF-3DHP and one
in five for Human3.6M. *Minutes* is the time for the dataset's real number of rows at that rate on
one core; reading files from a slow disk takes additional time.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.annotations import (
    bedlam_scene,
    eft_entry,
    sequence_3dpw,
    write_annot,
    write_eft,
    write_h36m,
    write_npz,
    write_pickle,
)
from benchmarks.command import chosen, command_line, keep
from benchmarks.harness import machine, markdown_table
from refit_shard.converter.importers.run import ImportRequest, plan_import, run_import
from refit_shard.loaders.measure.repeats import Spread, interleaved, spread

PACKAGES = ("numpy", "scipy", "h5py", "cdflib")
# Rows of ReFit's npz files; files of the same kind of annotations are added up.
REAL_ROWS = {
    "eft": 74_834 + 14_361,
    "bedlam": 951_000,
    "bedlam, no SMPL": 951_000,
    "mpi-inf-3dhp": 96_507,
    "3dpw": 22_735 + 35_515,
    "h36m": 312_188,
}
VERTICES, BONES = 6890, 24
MASK_PX = 1000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Approximate rows of each kind, and repeats."""

    eft: int = 2000
    bedlam: int = 20_000
    cameras_3dhp: int = 4000
    frames_3dpw: int = 2000
    frames_h36m: int = 1000
    rounds: int = 5


QUICK = Settings(eft=5, bedlam=8, cameras_3dhp=20, frames_3dpw=6, frames_h36m=6, rounds=1)


def _write_smpl(folder: Path) -> None:
    """Arrays with the shapes of SMPL's model and of SPIN's regressor."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    parents = np.maximum(np.arange(BONES) - 1, 0)
    np.savez(
        folder / "SMPL_NEUTRAL.npz",
        v_template=rng.normal(0, 0.5, (VERTICES, 3)),
        shapedirs=rng.normal(0, 0.03, (VERTICES, 3, 10)),
        posedirs=rng.normal(0, 0.01, (VERTICES, 3, 207)),
        J_regressor=rng.random((BONES, VERTICES)) / VERTICES * 2,
        weights=rng.random((VERTICES, BONES)) / BONES * 2,
        kintree_table=np.stack([parents, np.arange(BONES)]),
        f=np.zeros((1, 3), np.int64),
    )
    np.save(folder / "J_regressor_extra.npy", rng.random((9, VERTICES)) / VERTICES * 2)


def _write_h36m(root: Path, frames: int) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:MASK_PX, :MASK_PX]
    masks = [
        ((x - cx) / 90) ** 2 + ((y - cy) / 220) ** 2 < 1
        for cx, cy in rng.uniform(300, 700, (max(1, frames // 50), 2))
    ]
    shown = [masks[frame % len(masks)] for frame in range(frames)]
    d3, d2 = rng.normal(0, 900, (frames, 96)), rng.uniform(0, MASK_PX, (frames, 64))
    write_h36m(root, 1, "Walking.55011271", d3, d2, shown)


def make_sources(folder: Path, settings: Settings) -> dict[str, ImportRequest]:
    """The sources of each import, by kind."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    entries = [eft_entry(f"{i:09d}.jpg", i) for i in range(settings.eft)]
    eft = write_eft(folder / "MPII_ver01.json", entries, "MPII")
    for part in range(2):
        scene = bedlam_scene(settings.bedlam // 2, part)
        write_npz(folder / f"labels/{part}.npz", scene)
    _write_smpl(folder / "smpl")
    annot2 = {c: rng.uniform(0, 2047, (settings.cameras_3dhp, 56)) for c in range(14)}
    annot3 = {c: rng.normal(0, 800, (settings.cameras_3dhp, 84)) for c in range(14)}
    write_annot(folder / "3dhp", 1, 1, annot2, annot3, do_compression=True)
    pickled = sequence_3dpw(settings.frames_3dpw, 2)
    write_pickle(folder / "3dpw/a.pkl", pickled)
    _write_h36m(folder / "h36m", settings.frames_h36m)

    def request(source: Path, smpl: Path | None = None) -> ImportRequest:
        out = folder / "out.npz"
        return ImportRequest(sources=(source,), out=out, smpl=smpl, workers=1, overwrite=True)

    return {
        "eft": request(eft),
        "bedlam": request(folder / "labels", folder / "smpl"),
        "bedlam, no SMPL": request(folder / "labels"),
        "mpi-inf-3dhp": request(folder / "3dhp"),
        "3dpw": request(folder / "3dpw"),
        "h36m": request(folder / "h36m"),
    }


def rows_per_second(request: ImportRequest) -> float:
    """Rows/s of one import."""
    began = time.perf_counter()
    rows = run_import(plan_import(request), lambda _: None).rows
    return rows / (time.perf_counter() - began)


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Measure every kind."""
    cases: dict[str, Callable[[], float]] = {
        name: partial(rows_per_second, request)
        for name, request in make_sources(folder, settings).items()
    }
    measured = {
        name: spread(values) for name, values in interleaved(cases, settings.rounds).items()
    }
    return {
        "benchmark": "bench_import",
        "machine": machine(PACKAGES),
        "settings": asdict(settings),
        "rows_per_second": {name: asdict(one) for name, one in measured.items()},
        "minutes": {name: REAL_ROWS[name] / one.median / 60 for name, one in measured.items()},
    }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = [
        [name, str(Spread(**one)), str(REAL_ROWS[name]), f"{results['minutes'][name]:.1f}"]
        for name, one in results["rows_per_second"].items()
    ]
    return markdown_table(["annotations", "rows/s", "real rows", "minutes"], rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and store the results."""
    parser = command_line("bench_import", __doc__)
    parser.add_argument("--rounds", type=int, help="repeats of every import (default 5)")
    args = parser.parse_args(argv)
    settings = chosen(args, QUICK, Settings(), ("rounds",))
    args.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.cache) as folder:
        results = run(settings, Path(folder) / "sources")
    print(report(results))
    keep(args, "bench_import", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
