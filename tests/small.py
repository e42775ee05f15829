"""Helpers to run commands as a user types them, and a tiny dataset whose files can be damaged."""

import contextlib
import hashlib
import io
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from refit_shard import Sample, ShardSet
from refit_shard.cli import main
from refit_shard.shards_spec.fields import record_crc

WIDTH, HEIGHT = 96, 64
PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Result:
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str


def refit(*args: object) -> Result:
    """Run ``refit-shard`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as ended:  # argparse
            code = int(ended.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def refit_command(*args: object) -> list[str]:
    """The command line that runs ``refit-shard`` in another process."""
    return [sys.executable, "-m", "refit_shard", *map(str, args)]


def refit_process(*args: object, **options: Any) -> Result:
    """Run ``refit-shard`` in another process."""
    done = subprocess.run(
        refit_command(*args), capture_output=True, text=True, check=False, timeout=120, **options
    )
    return Result(done.returncode, done.stdout, done.stderr)


def error_line(result: Result) -> str:
    """The error line of a failed command; asserts that there is only one, and no traceback."""
    lines = [line for line in result.err.splitlines() if line.startswith("refit-shard:")]
    assert len(lines) == 1, result.err
    assert "Traceback" not in result.err
    return lines[0]


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sealed(record: NDArray[np.void]) -> NDArray[np.void]:
    """The record with the checksum of its present content: a valid other row, not a damaged one."""
    record["record_crc32c"] = record_crc(record.tobytes())
    return record


def read_arrow(path: Path) -> pa.Table:
    """The table of an Arrow IPC file, read without the project's code."""
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def index_rows(folder: Path) -> list[dict[str, Any]]:
    """Every row of every index of a dataset, in the shards' order."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*-??????.arrow")):
        rows += [{"shard": path.stem, **row} for row in read_arrow(path).to_pylist()]
    return rows


def samples_of(folder: Path | str) -> list[Sample]:
    """Every sample of a dataset, in the npz's order."""
    data_set = ShardSet.open(folder)
    samples = [data_set[number] for number in range(len(data_set))]
    return sorted(samples, key=lambda sample: int(sample["source_row"]))


def quarantine(folder: Path) -> dict[int, str]:
    """The reason of each quarantined row by its number in the npz."""
    written = max(folder.glob("quarantine*.feather"), key=lambda path: path.stat().st_mtime_ns)
    rows = read_arrow(written).to_pylist()
    found = {row["source_row"]: row["reason"] for row in rows}
    assert len(found) == len(rows)
    return found


def picture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """A smooth BGR picture without symmetry, so that a rotation or a mirror changes it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def colourful(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """A picture with edges of all colours, so that misplaced chroma changes it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    noise = rng.integers(-20, 21, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


def encoded(suffix: str, image: NDArray[Any], *options: int) -> bytes:
    """A picture as the bytes of a file."""
    return cv2.imencode(suffix, image, options)[1].tobytes()


def columns(names: list[str], seed: int = 0) -> dict[str, NDArray[Any]]:
    """Annotations of people in 96x64 frames, one row per name."""
    rng = np.random.default_rng(seed)
    count = len(names)
    return {
        "imgname": np.array(names),
        "center": np.column_stack([rng.uniform(30, 66, count), rng.uniform(20, 44, count)]),
        "scale": rng.uniform(0.15, 0.3, count),
        "part": rng.uniform(5, 60, (count, 24, 3)),
        "openpose": rng.uniform(5, 60, (count, 25, 3)),
        "pose": rng.normal(0, 0.3, (count, 72)),
        "shape": rng.normal(0, 1, (count, 10)),
        "S": rng.normal(0, 0.5, (count, 24, 4)),
        "gender": rng.choice(np.array(["m", "f"]), count),
    }


@dataclass
class Own:
    """A user's own dataset with one frame name per row; tests may damage its files and columns."""

    folder: Path
    names: list[str]
    columns: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.columns = columns(self.names)
        for seed, name in enumerate(dict.fromkeys(self.names)):
            self.put(name, encoded(Path(name).suffix, picture(seed)))
        self.save()

    @property
    def root(self) -> Path:
        """Folder of the frames."""
        return self.folder / "frames"

    @property
    def npz(self) -> Path:
        """Path of the annotations."""
        return self.folder / "own.npz"

    @property
    def out(self) -> Path:
        """Folder of the shards."""
        return self.folder / "shards" / "own"

    def put(self, name: str, data: bytes) -> Path:
        """Write a frame's file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def save(self, **changed: Any) -> None:
        """Write the npz with some columns replaced; None leaves one out."""
        self.columns = {**self.columns, **changed}
        kept: dict[str, Any] = {k: v for k, v in self.columns.items() if v is not None}
        np.savez(self.npz, **kept)

    def command(self, *args: object, workers: int | None = 0) -> list[object]:
        """The arguments of a build of this dataset."""
        what = ["build", "--npz", self.npz, "--root", self.root, "--name", "own"]
        how = [] if workers is None else ["--workers", workers]
        return [*what, "--out", self.folder / "shards", *how, *args]

    def build(self, *args: object) -> Result:
        """Build in this process; up to 90 % of the rows may be quarantined."""
        return refit(*self.command("--max-bad", 0.9, *args))


def own(folder: Path, rows: int = 6, per_frame: int = 2, suffix: str = ".jpg") -> Own:
    """A dataset of ``rows`` people in 96x64 frames."""
    return Own(folder, [f"a/{row // per_frame:03d}{suffix}" for row in range(rows)])
