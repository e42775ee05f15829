"""``refit-shard bench``: measure the loader's speed on this machine."""

import argparse
from typing import TYPE_CHECKING, Any

from refit_shard.commands import Subparsers

if TYPE_CHECKING:
    from refit_shard.loaders.measure.bench import Speed
    from refit_shard.loaders.measure.repeats import Spread
    from refit_shard.loaders.stream.options import StreamOptions

    Sources = dict[str, tuple[str, float]]

HELP = """\
Measure the loader on this machine: samples/s for several numbers of threads (num_workers), compared
with only decoding the same JPEGs with as many threads; the share of time in which the threads wait
for storage, with the shards in the page cache and not in it; and the number of threads that a GPU
needs. PATH is a training YAML such as ReFit's, the folder of one dataset's shards, or its name in
data/shards. The last line printed is a summary for a README. Nothing is written. The measured
shards are dropped from the page cache, which affects all users of the machine.

  refit-shard bench data/shards/bedlam
  refit-shard bench configs/config_bedlam.yaml --gpu 1000 --image uint8
  taskset -c 0-7 refit-shard bench configs/config_bedlam.yaml   only the cores of one rank

Measure on an idle machine; the output says if other processes used its cores meanwhile.
"""

COLUMNS = ["threads", "samples/s", "bare decode/s", "over bare decode", "cores", "waiting"]


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "bench",
        help="measure the loader's speed on this machine",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "path", metavar="PATH", help="a training YAML, or a dataset's folder or name"
    )
    parser.add_argument(
        "--shards",
        default="data/shards",
        metavar="DIR",
        help="folder of the datasets by name (default data/shards)",
    )
    parser.add_argument(
        "--gpu",
        type=float,
        metavar="N",
        help="images/s that a GPU trains on: print how many threads deliver them",
    )
    parser.add_argument(
        "--image",
        default="normalized",
        choices=("normalized", "bfloat16", "uint8"),
        help="dtype of the images (default normalized: float32)",
    )
    parser.add_argument(
        "--occluders", metavar="FILE", help="cut-outs to paste (default: the loader's default)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=2.0,
        metavar="S",
        help="duration of one measurement (default 2)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        metavar="N",
        help="how often all measurements are repeated (default 3)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def _stream_of(args: argparse.Namespace) -> "tuple[Sources, StreamOptions]":
    """The sources and options of the stream to measure."""
    from refit_shard.loaders.stream.config import read_config
    from refit_shard.loaders.stream.options import StreamOptions
    from refit_shard.rows import one_set_url
    from refit_shard.shards_spec.storage.paths import local_path

    given = {"image": args.image, "occluders": args.occluders}
    place = local_path(args.path, "bench")
    shards = local_path(args.shards, "--shards")
    if place.is_file() or place.suffix:
        config = read_config(place)
        return config.places(shards), StreamOptions(**config.stated, **given)
    url = one_set_url(
        args.path, shards=str(shards), instead=", or a training YAML with their ratios"
    )
    return {url.rstrip("/").rpartition("/")[2]: (url, 1.0)}, StreamOptions(**given)


def _figure(value: "Spread", form: str) -> str:
    """The median, with the smallest and largest value if they differ."""
    low, high = f"{value.low:{form}}", f"{value.high:{form}}"
    return f"{value.median:{form}}" + ("" if low == high else f" ({low} to {high})")


def _show_threads(title: str, speed: "Speed") -> None:
    from refit_shard.console import print_table

    rows = [
        [
            f"{one.threads}",
            _figure(one.samples_per_second, ",.0f"),
            _figure(one.bare_decode, ",.0f"),
            _figure(one.over_bare, ".2f"),
            _figure(one.cores, ".1f"),
            _figure(one.waiting, ".0%"),
        ]
        for one in speed.threads
    ]
    print_table(title, COLUMNS, rows)


def _storage_line(speed: "Speed") -> str:
    storage = speed.storage
    if not storage.dropped:
        return (
            f"from storage: not measured, because {storage.still_cached:.0%} of the files stayed "
            "in the page cache"
        )
    line = (
        f"from storage, with {speed.threads[-1].threads} threads: "
        f"{_figure(storage.samples_per_second, ',.0f')} samples/s, waiting "
        f"{_figure(storage.waiting, '.0%')}, over {storage.samples} samples"
    )
    if storage.still_cached is None:
        line += "; this file system does not tell if the files left the page cache"
    return line


def _gpu_lines(gpu: dict[str, Any], speed: "Speed") -> list[str]:
    threads, most = gpu["threads"], speed.fastest
    lines = [
        f"{gpu['images_per_second']:,.0f} images/s: {_counted(threads)}, and a core for the loop"
    ]
    if not gpu["measured"]:
        lines[0] += (
            f"; this is more than the {most.samples_per_second.median:,.0f} samples/s measured "
            f"here with {_counted(most.threads)}, so {threads} is an estimate"
        )
    if gpu["storage_keeps_up"] is False:
        given = speed.storage.samples_per_second.median
        lines.append(
            f"storage delivers {given:,.0f} samples/s: too few if the shards do not fit into "
            "memory; use a larger prefetch, a window or a faster disk"
        )
    return lines


def _counted(threads: int) -> str:
    return f"{threads} thread" if threads == 1 else f"{threads} threads"


def _load_line(speed: "Speed") -> str:
    load = speed.load
    return (
        f"busy machine: other processes used {load.others + load.stolen:.1f} of its {load.cores} "
        f"cores meanwhile ({load.stolen:.1f} of them other virtual machines), load average "
        f"{load.before:.1f} before; the measured speeds are too low"
    )


def _gpu(wanted: float | None, speed: "Speed") -> dict[str, Any] | None:
    """The number of threads that a GPU needs, from the medians; None if ``--gpu`` is not given."""
    from refit_shard.loaders.measure.bench import threads_for

    if wanted is None:
        return None
    rates = {one.threads: one.samples_per_second.median for one in speed.threads}
    threads, measured = threads_for(rates, wanted)
    storage = speed.storage
    keeps_up = storage.samples_per_second.median >= wanted if storage.dropped else None
    return {
        "images_per_second": wanted,
        "threads": threads,
        "measured": measured,
        "storage_keeps_up": keeps_up,
    }


def _readme_line(what: str, speed: "Speed", gpu: dict[str, Any] | None) -> str:
    """The result as one line for a README."""
    from datetime import datetime, timezone

    from refit_shard import __version__
    from refit_shard.loaders.measure.machine import cpu_model

    best, storage = speed.fastest, speed.storage
    parts = [
        f"{best.samples_per_second.median:,.0f} samples/s with {_counted(best.threads)}, "
        f"{best.over_bare.median:.2f} of bare decode",
    ]
    if best.threads != speed.threads[0].threads:
        parts.append(f"{speed.threads[0].samples_per_second.median:,.0f} with 1")
    if storage.dropped:
        parts.append(f"{storage.samples_per_second.median:,.0f} from storage")
    if gpu is not None:
        about = "" if gpu["measured"] else "about "
        parts.append(
            f"{gpu['images_per_second']:,.0f} images/s take {about}{_counted(gpu['threads'])}"
        )
    busy = ", busy" if speed.load.is_busy else ""
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    return (
        f"refit-shard {__version__}: {'; '.join(parts)} ({what}; {cpu_model()}, "
        f"{speed.load.usable} cores{busy}, {date})"
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print the speeds."""
    from dataclasses import asdict

    from refit_shard.console import Meter, as_json, say
    from refit_shard.loaders.measure.bench import BenchOptions, measure_speed, measurements
    from refit_shard.loaders.measure.machine import cpu_model
    from refit_shard.shards_spec.values import number

    if args.gpu is not None:
        number("--gpu", args.gpu, 1, 1e9)
    bench = BenchOptions(rounds=args.rounds, seconds=args.seconds)
    sources, options = _stream_of(args)
    total = measurements(bench.rounds)
    with Meter("bench", total, quiet=args.json, unit="measurements") as meter:
        speed = measure_speed(sources, options, bench, lambda: meter.advance(1))
    gpu = _gpu(args.gpu, speed)
    what = (
        f"{', '.join(sources)}, {options.image} {options.res} px, batches of {options.batch_size}, "
        f"{'with' if speed.occludes else 'no'} occluders"
    )
    line = _readme_line(what, speed, gpu)
    if args.json:
        as_json(
            {
                "machine": {"cpu": cpu_model(), "busy": speed.load.is_busy},
                "stream": {
                    "sources": {name: ratio for name, (_, ratio) in sources.items()},
                    "image": options.image,
                    "res": options.res,
                    "batch_size": options.batch_size,
                },
                "settings": asdict(bench),
                **asdict(speed),
                "gpu": gpu,
                "line": line,
            }
        )
        return 0
    _show_threads(f"{what}; {bench.rounds} rounds of {bench.seconds:g} s", speed)
    say(_storage_line(speed))
    for text in _gpu_lines(gpu, speed) if gpu is not None else ():
        say(text)
    if speed.load.is_busy:
        say(_load_line(speed))
    say(line)
    return 0
