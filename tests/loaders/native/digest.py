"""Whether the compiled library gives the same bits on other processors: ``make aarch64``.

    python -m tests.loaders.native.digest

A seeded batch of stored crops is read, checked and drawn by a small program that is compiled for
x86-64 and for aarch64, and by the library of this checkout; prints the SHA-256 of the images each
way. Needs ziglang, which compiles for both, and Debian's qemu-user, which runs the second. Exit
code 1 where two digests differ.
"""

import ctypes
import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from benchmarks.photographs import photo_frame
from refit_shard.converter.frames.encode import encode
from refit_shard.loaders.items.effects import LOOK, native_effects
from refit_shard.loaders.items.pixels import MEAN, STD
from refit_shard.loaders.native import CutOuts, Drawer, ImageKind, Jpegs, has_avx2, slack
from refit_shard.loaders.native.compiling import OPTIONS, SOURCE, sources
from refit_shard.loaders.native.interface import PASTE, READ, SAMPLE
from tests.small import colourful

U8 = NDArray[np.uint8]

HERE = Path(__file__).parent
QEMU = "qemu-aarch64"
COUNT, PASTES, RES = 48, 3, 64
DECODED = 5  # the sample that is given as pixels
WORK = np.dtype(
    [
        *((name, np.int64) for name in ("bytes", "reads", "samples", "count")),
        *((name, np.int64) for name in ("cut_outs", "cut_out_count", "pastes", "paste_count")),
        *((name, np.float32, (3,)) for name in ("scale", "shift")),
        *((name, np.int32) for name in ("res", "unused")),
    ],
    align=True,
)


@dataclass(frozen=True)
class Batch:
    """What is drawn: n stored crops and all that :meth:`Drawer.draw` asks for."""

    jpegs: list[bytes]
    sides: NDArray[np.int32]
    maps: NDArray[np.float64]
    factors: NDArray[np.float32]
    cut_outs: list[U8]
    pastes: NDArray[np.void]
    effects: NDArray[np.void]
    decoded: U8

    @classmethod
    def seeded(cls) -> "Batch":
        """Crops of 20 to 300 px of photographs and of hard edges, of every quality; turned,
        stretched, mirrored, half of them leading beyond the crop, with occluders and effects.
        """
        rng = np.random.default_rng(12)
        sides = rng.integers(20, 300, (COUNT, 2))
        photo = photo_frame(320, 320, rng)
        jpegs = []
        for number, (height, width) in enumerate(sides.tolist()):
            hard = colourful(height, width, number)
            image = hard if number % 2 else np.ascontiguousarray(photo[:height, :width])
            jpegs.append(encode(image, int(rng.integers(5, 101))))
        turned = rng.uniform(-np.pi, np.pi, COUNT)
        linear = np.array([[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]])
        linear = linear.transpose(2, 0, 1) * rng.uniform(0.3, 3, (COUNT, 2))[:, None]
        middle = sides[:, ::-1] / 2 - linear @ np.full(2, RES / 2)
        pastes = np.zeros(COUNT * PASTES, PASTE)
        for name, high in (("x", RES), ("y", RES), ("size", 1.5)):
            pastes[name] = rng.uniform(0.1, high, len(pastes))
        pastes["cut_out"] = rng.integers(0, 4, len(pastes))
        objects = [rng.integers(0, 256, (h, h + 7, 4), np.uint8) for h in (1, 9, 30, 70)]
        factors = rng.uniform(0.6, 1.4, (COUNT, 3)).astype(np.float32)
        maps = np.concatenate([linear, middle[:, :, None]], 2)
        height, width = sides[DECODED].tolist()
        decoded = colourful(height, width, 1)
        effects = native_effects(looks(rng), RES)
        return cls(jpegs, sides.astype(np.int32), maps, factors, objects, pastes, effects, decoded)

    @property
    def paste_spans(self) -> NDArray[np.int64]:
        """The first occluder of each sample and how many it has, (n, 2)."""
        return np.array([[PASTES * number, PASTES] for number in range(COUNT)])


def looks(rng: np.random.Generator) -> NDArray[np.void]:
    """Every effect on some of the images, and none on others."""
    made = np.zeros(COUNT, LOOK)
    for name, none, low, high in (
        ("downscale", 1.0, 0.1, 1.0),
        ("blur", 0.0, 0.2, 5.0),
        ("gray", 0, 0, 2),
        ("brightness", 0.0, -0.5, 0.5),
        ("contrast", 1.0, 0.0, 3.0),
    ):
        made[name] = np.where(rng.random(COUNT) < 0.5, none, rng.uniform(low, high, COUNT))
    return made


class File:
    """A file of tables and bytes whose pointers are places in it; see ``digest.cc``."""

    def __init__(self) -> None:
        self._data = bytearray(WORK.itemsize)

    def put(self, data: bytes) -> int:
        """Add bytes; gives their place."""
        self._data += bytes(-len(self._data) % 64)
        place = len(self._data)
        self._data += data
        return place

    def close(self, work: NDArray[np.void]) -> bytes:
        """The whole file."""
        work["bytes"] = len(self._data)
        return work.tobytes() + bytes(self._data[WORK.itemsize :])


def stored(jpeg: bytes, header: bytes) -> tuple[bytes, int]:
    """A sample as it lies in a tar, and the bytes of its record."""
    record = crc32c(jpeg).to_bytes(4, "little") + bytes(8)
    record += crc32c(record).to_bytes(4, "little")
    return jpeg + bytes(-len(jpeg) % 512 + 512) + header + record, len(record)


def packed(batch: Batch) -> bytes:
    """The batch as ``digest.cc`` reads it."""
    file, work = File(), np.zeros((), WORK)
    reads, samples = np.zeros(COUNT, READ), np.zeros(COUNT, SAMPLE)
    header = b"\x93NUMPY\x01\x00"
    reads["header"], reads["header_length"] = file.put(header), len(header)
    for read, jpeg in zip(reads, batch.jpegs, strict=True):
        data, record = stored(jpeg, header)
        read["offset"], read["length"], read["jpeg_length"] = file.put(data), len(data), len(jpeg)
        read["data"] = file.put(bytes(len(data) + slack()))
        read["record_length"] = record
    samples["jpeg_length"] = reads["jpeg_length"]
    samples["map"], samples["factors"] = batch.maps.reshape(-1, 2, 3), batch.factors
    samples["height"], samples["width"] = batch.sides.T
    samples["first_paste"], samples["pastes"] = batch.paste_spans.T
    samples["rgb"][DECODED] = file.put(batch.decoded.tobytes())
    for sample, effects in zip(samples, batch.effects, strict=True):
        sample["effects"] = file.put(effects.tobytes())
    cut_outs = CutOuts(batch.cut_outs)
    table = cut_outs.table.copy()
    for row in table:
        for level in range(row["levels"]):
            size = (row["height"] >> level) * (row["width"] >> level) * 4
            row["level"][level] = file.put(ctypes.string_at(int(row["level"][level]), int(size)))
    for name, rows in (("reads", reads), ("samples", samples), ("cut_outs", table)):
        work[name] = file.put(rows.tobytes())
    work["pastes"], work["paste_count"] = file.put(batch.pastes.tobytes()), len(batch.pastes)
    work["count"], work["cut_out_count"], work["res"] = COUNT, len(table), RES
    work["scale"] = 1.0 / (255.0 * STD.astype(np.float64))
    work["shift"] = MEAN.astype(np.float64) / STD.astype(np.float64)
    return file.close(work)


@dataclass(frozen=True)
class Way:
    """How the batch is drawn: by a program for ``processor``, started by ``command``."""

    processor: str
    command: tuple[str, ...]
    portable: bool
    threads: int


WAYS = [
    *(Way("x86_64", (), portable, threads) for portable in (False, True) for threads in (1, 3)),
    *(Way("aarch64", (QEMU,), False, threads) for threads in (1, 3)),
]


def missing() -> str:
    """What this machine lacks, or nothing."""
    if find_spec("ziglang") is None:
        return "needs the package ziglang"
    return "" if shutil.which(QEMU) else f"needs {QEMU}: apt-get install qemu-user"


def compile_program(processor: str, folder: Path) -> Path:
    """The program for a processor, by the library's own options; it needs no system's libraries."""
    made = folder / f"digest-{processor}"
    units = [str(path) for path in (*sources(), HERE / "digest.cc") if path.suffix == ".cc"]
    target = ["-mcpu=baseline", "-target", f"{processor}-linux-musl", "-static", f"-I{SOURCE}"]
    options = [option for option in OPTIONS if option != "-shared"]
    zig = [sys.executable, "-m", "ziglang", "c++"]
    subprocess.run([*zig, *target, *options, *units, "-o", str(made)], check=True)
    return made


def digest_by(way: Way, program: Path, work: Path) -> tuple[str, str]:
    """The way with the path that was really taken, and SHA-256 of the images of all kinds."""
    found = hashlib.sha256()
    for kind in ImageKind:
        words = [program, work, kind, int(way.portable), way.threads]
        command = [*way.command, *map(str, words)]
        done = subprocess.run(command, check=True, capture_output=True)
        found.update(done.stdout)
        path = done.stderr.decode()
    return f"{way.processor}, {path}, {way.threads} threads", found.hexdigest()


def digest_here(batch: Batch) -> str:
    """SHA-256 of the same images from this checkout's library, in this process."""
    found = hashlib.sha256()
    for kind in ImageKind:
        outs = np.empty((COUNT, *kind.shape(RES)), kind.dtype)
        codes, _ = Drawer(RES, kind, mean=MEAN, deviation=STD).draw(
            Jpegs.of(batch.jpegs),
            batch.sides,
            batch.maps,
            batch.factors,
            outs,
            np.arange(COUNT),
            cut_outs=CutOuts(batch.cut_outs),
            pastes=batch.pastes,
            paste_spans=batch.paste_spans,
            effects=batch.effects,
            decoded={DECODED: batch.decoded},
        )
        assert not codes.any()
        found.update(outs.tobytes())
    return found.hexdigest()


def digests() -> dict[str, str]:
    """The digest of each way."""
    batch = Batch.seeded()
    found = {f"this checkout's library{', AVX2' * has_avx2()}": digest_here(batch)}
    with tempfile.TemporaryDirectory() as place:
        work = Path(place) / "work"
        work.write_bytes(packed(batch))
        programs = {one: compile_program(one, Path(place)) for one in ("x86_64", "aarch64")}
        for way in WAYS:
            name, digest = digest_by(way, programs[way.processor], work)
            found[name] = digest
    return found


def main() -> int:
    """Print the digest of each way."""
    if lack := missing():
        print(lack, file=sys.stderr)
        return 2
    found = digests()
    for way, digest in found.items():
        print(digest, way)
    return int(len(set(found.values())) > 1)


if __name__ == "__main__":
    sys.exit(main())
