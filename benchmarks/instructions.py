"""Counts the instructions of the loader's call that draws a batch, by function.

    python -m benchmarks.instructions

Valgrind's callgrind counts them (apt-get install valgrind), so other load on the machine has no
effect. It runs one thread that draws one batch of 64, with all augmentation and occluders, from the
crops of :mod:`benchmarks.crops`. The library is compiled as usual, but with debug information;
addr2line (binutils) finds functions that the compiler inlined. Instructions of the C library
(copying and clearing memory) are not counted. Instructions do not measure time: they ignore memory
latency, and one AVX2 instruction works on 32 bytes.
"""

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.command import chosen, command_line, keep
from benchmarks.crops import Crops, CropSizes, cached_crops
from benchmarks.drawn_batch import save
from benchmarks.harness import machine, markdown_table
from benchmarks.load_cases import options
from benchmarks.load_stages import Positions
from benchmarks.peers.transform import Kind
from refit_shard.loaders.native import Drawer
from refit_shard.loaders.native.compiling import OPTIONS, SOURCE, compilers, sources
from refit_shard.loaders.stream.batches import BatchMaker

# The stage of a function by its source file; in decode.cc by its name.
STAGES = {
    "header": "tables of a JPEG's header",
    "map": "which MCUs are shown",
    "decode": "entropy decoding",
    "idct": "inverse DCT",
    "warp": "warp and colour",
    "occlude": "occluders",
    "finish": "writing the image",
}
_MARKERS, _PLANES, _REST = "finding restart markers", "planes of samples", "the rest"
_OF_DECODE = {"scan": _MARKERS, "find_markers": _MARKERS, "store": _PLANES, "take_planes": _PLANES}
DECODING = (_MARKERS, STAGES["decode"], STAGES["idct"], _PLANES)
_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Settings(CropSizes):
    """Sizes of the run."""

    frames: int = 100
    passes: int = 1
    batch: int = 64
    images: tuple[Kind, ...] = ("uint8", "normalized")


QUICK = Settings(frames=3, passes=1, samples_per_shard=8, occluders=4, batch=4, images=("uint8",))


def save_batch(path: Path, image: Kind, crops: Crops, batch: int) -> None:
    """Save the arguments with which the first batch of a stream is drawn."""
    shards = {"bedlam": (str(crops.shards), 1.0)}
    stream = Positions(BatchMaker(shards, options(image, crops, batch, 0)), batch)
    draw = Drawer.draw

    def saving(drawer: Drawer, *given: Any, **named: Any) -> Any:
        save(path, drawer, given, named)
        return draw(drawer, *given, **named)

    with patch.object(Drawer, "draw", saving):
        stream.make(1)


def compile_with_names(folder: Path) -> Path:
    """The library compiled with debug information."""
    made = folder / "librefit.so"
    units = [str(path) for path in sources() if path.suffix == ".cc"]
    kept = [option for option in OPTIONS if option != "-Wl,-s"]
    subprocess.run([*next(compilers()), *kept, "-g", *units, "-o", str(made)], check=True)
    return made


def count(batch: Path, library: Path, folder: Path) -> str:
    """Callgrind's profile of a process that draws once."""
    out = folder / "callgrind.out"
    how = ["--tool=callgrind", "--dump-instr=yes", f"--callgrind-out-file={out}"]
    draw = [sys.executable, "-m", "benchmarks.drawn_batch", str(batch), str(library)]
    subprocess.run(
        ["valgrind", "--quiet", *how, *draw],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return out.read_text()


def by_address(profile: str, library: str) -> Counter[int]:
    """The number of instructions at each address of a library.

    ``profile``: text in callgrind's format with positions "instr line", each relative to the
    previous one. A line after ``calls=`` is the cost of the called function, which is counted
    there, not here.
    """
    found: Counter[int] = Counter()
    names: dict[str, str] = {}
    is_ours, address, is_call = False, 0, False
    for line in profile.splitlines():
        if line.startswith(
            ("ob=", "cob=")
        ):  # the library of the next lines, or of a called function
            kind, _, text = line.partition("=")
            number, _, name = text.partition(" ")
            names.setdefault(number, name)
            is_ours = names[number].endswith(library) if kind == "ob" else is_ours
        elif line.startswith("calls="):
            is_call = True
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            place, _, spent = line.split()
            if place[0] in "+-":
                address += int(place, 16) if place[0] == "+" else -int(place[1:], 16)
            elif place != "*":
                address = int(place, 16)
            if is_ours and not is_call:
                found[address] += int(spent)
            is_call = False
    return found


def functions_of(addresses: Iterable[int], library: Path) -> dict[int, tuple[str, str]]:
    """The source file (without suffix) and function at each address.

    For inlined code this is the innermost function of the project's sources.
    """
    asked = "".join(f"{address:#x}\n" for address in addresses)
    said = subprocess.run(
        ["addr2line", "-a", "-i", "-f", "-C", "-e", str(library)],
        input=asked,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found: dict[int, tuple[str, str]] = {}
    address, lines = 0, iter(said.splitlines())
    for line in lines:
        if line.startswith("0x"):
            address = int(line, 16)
            continue
        place = next(lines).rpartition(":")[0]
        if address not in found and Path(place).resolve().parent == SOURCE.resolve():
            plain = line.replace("(anonymous namespace)::", "")
            name = plain.partition("(")[0].rpartition(" ")[2].rpartition("::")[2]
            found[address] = Path(place).stem, name
    return found


def stage_of(file: str, function: str) -> str:
    """The stage that a function belongs to."""
    if file == "decode":
        for begin, stage in _OF_DECODE.items():
            if function.startswith(begin):
                return stage
    return STAGES.get(file, _REST)


def measure(image: Kind, crops: Crops, batch: int, folder: Path) -> dict[str, Any]:
    """Instructions per sample: in all, by stage and by function."""
    path = folder / f"{image}.npz"
    save_batch(path, image, crops, batch)
    library = compile_with_names(folder)
    spent = by_address(count(path, library, folder), library.name)
    places = functions_of(spent, library)
    stages: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for address, instructions in spent.items():
        file, function = places.get(address, ("", ""))
        stages[stage_of(file, function)] += instructions
        functions[f"{file}: {function}"] += instructions
    whole = sum(stages.values())
    return {
        "image": image,
        "instructions_a_sample": whole / batch,
        "stages": {name: one / whole for name, one in stages.most_common()},
        "functions": {name: one / whole for name, one in functions.most_common(_SHOWN)},
        "decoding": sum(stages[name] for name in DECODING) / whole,
    }


def report(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as text: stages for each kind of image, and the most expensive functions."""
    lines = []
    for one in results:
        shares = [*one["stages"].items(), ("decoding of what is shown", one["decoding"])]
        rows = [(name, f"{share:.1%}") for name, share in shares]
        thousands = one["instructions_a_sample"] / 1000
        title = (f"{one['image']}: {thousands:,.0f} thousand instructions a sample", "share")
        lines.append(markdown_table(title, rows))
        rows = [(name, f"{share:.1%}") for name, share in one["functions"].items()]
        lines.append(markdown_table(("function", "share"), rows))
    return "\n\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; writes JSON to ``benchmarks/results/``."""
    parser = command_line("instructions", __doc__)
    parser.add_argument(
        "--frames", type=int, help="frames that the crops are cut from (default 100)"
    )
    args = parser.parse_args(argv)
    missing = [name for name in ("valgrind", "addr2line") if shutil.which(name) is None]
    if missing:
        print(f"instructions: needs {' and '.join(missing)}: apt-get install valgrind binutils")
        return 2
    settings = chosen(args, QUICK, Settings(), ("frames",))
    crops = cached_crops(args.cache, settings)
    with tempfile.TemporaryDirectory() as place:
        found = [measure(one, crops, settings.batch, Path(place)) for one in settings.images]
    results = {
        "benchmark": "instructions",
        "machine": machine(("numpy",)),
        "settings": asdict(settings),
        "images": found,
    }
    print(report(found))
    keep(args, "instructions", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
