"""``refit-shard report``: one HTML page on the content of shards and its augmentation."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from refit_shard.commands import Subparsers, add_drawing
from refit_shard.shards_spec.errors import RefitShardError, UsageError

if TYPE_CHECKING:
    from refit_shard.loaders.stream.config import TrainingConfig
    from refit_shard.report.facts import Facts, SetFacts
    from refit_shard.report.pictures import Reason
    from refit_shard.shards_spec.reader import ShardSet

HELP = """\
Write one HTML page on the content of shards. For each dataset it shows rows, bytes, box sizes, the
places of joints in the frame, visible joints, poses, shapes, genders and cameras; then quarantined
rows with their frames, duplicate frames and crops, crops before and after augmentation, and for a
training config each dataset's share of an epoch. The page needs no network.

  refit-shard report data/shards --out report.html
  refit-shard report configs/config_bedlam.yaml --out report.html
  refit-shard report data/shards/bedlam --where "left_heel.conf > 0.5" --out feet.html

SET is a dataset's folder or URL, a folder of datasets, or the name of a dataset in data/shards.
CONFIG is a training YAML; its "augmentation:" is the policy of the augmented crops (default:
ReFit's). Frames of quarantined rows are looked for below the ROOTs of data_config.py or of --root.
"""


def add_parser(commands: Subparsers) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "report",
        help="write a page of distributions, crops and duplicates",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "places", nargs="+", metavar="SET|CONFIG", help="datasets, or one training YAML"
    )
    parser.add_argument("--out", required=True, metavar="FILE.html", help="page to write")
    parser.add_argument(
        "--shards",
        default="data/shards",
        metavar="DIR",
        help="with CONFIG: folder of the datasets (default data/shards)",
    )
    parser.add_argument("--where", metavar="CONDITION", help='which rows, such as "scale > 0.5"')
    parser.add_argument("--title", metavar="TEXT", help="title of the page")
    add_drawing(parser, 12)
    parser.add_argument(
        "--data-config", metavar="FILE", help="data_config.py to read (default ./data_config.py)"
    )
    parser.add_argument(
        "--root",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="folder of a dataset's frames, to show quarantined ones; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="also print the numbers as JSON")
    parser.set_defaults(run=run)


def is_config(places: list[str]) -> bool:
    """True if the arguments are one training YAML."""
    return len(places) == 1 and Path(places[0]).suffix.lower() in (".yaml", ".yml")


def _roots(texts: list[str]) -> dict[str, str]:
    """Folders of frames by dataset name, from the values of ``--root``.

    Raises:
        UsageError: a text is not NAME=DIR.
    """
    found = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder:
            raise UsageError(f"--root {text!r}: must be NAME=DIR")
        found[name] = folder
    return found


def _open(args: argparse.Namespace) -> "tuple[list[ShardSet], TrainingConfig | None]":
    """The open datasets, in the order of the training config if there is one, and that config."""
    from refit_shard.loaders.stream.config import read_config
    from refit_shard.loaders.stream.source import open_shards
    from refit_shard.rows import find_sets

    if not is_config(args.places):
        return find_sets(args.places), None
    config = read_config(args.places[0])
    places = config.places(args.shards)
    return [open_shards(name, url) for name, (url, _) in places.items()], config


def _quarantine(one: "SetFacts", args: argparse.Namespace) -> "tuple[Reason, ...]":
    """The quarantined rows of a dataset by reason, with their frames if its root is known."""
    from refit_shard.converter.annotations.datasets import Dataset
    from refit_shard.data_folder import find_data_config
    from refit_shard.report.pictures import quarantine

    manifest = one.data_set.manifest
    if not manifest.quarantined:
        return ()
    name = manifest.dataset
    dataset, root, why_not = Dataset(name=name, root_variable="--root"), "", ""
    try:
        yaml = args.places[0] if is_config(args.places) else None
        config = find_data_config(args.data_config, yaml)
        dataset = config.datasets.get(name, dataset)
        root = _roots(args.root).get(name) or config.root(config.find(name))
    except RefitShardError as error:
        root = _roots(args.root).get(name, "")
        reason = re.split("[:;]", str(error))[0]
        why_not = "" if root else f"{reason}; pass --root {name}=DIR"
    return tuple(quarantine(one, dataset, root, why_not))


def _gather(sets: "list[ShardSet]", args: argparse.Namespace) -> "Facts":
    from refit_shard.console import Meter
    from refit_shard.report.facts import gather

    rows = sum(one.manifest.rows for one in sets)
    with Meter("report", rows, quiet=args.json, unit="rows") as meter:
        return gather(sets, args.where, meter.advance)


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    import jinja2  # noqa: F401  # a missing package is reported before the work begins
    import vl_convert  # noqa: F401

    from refit_shard.console import as_json, human_bytes, say
    from refit_shard.loaders.stream.batches import open_occluders
    from refit_shard.loaders.stream.options import StreamOptions
    from refit_shard.report.facts import mix_of
    from refit_shard.report.page import Report, make_page
    from refit_shard.report.pictures import sheet
    from refit_shard.report.summary import summary
    from refit_shard.shards_spec.storage.files import write_file
    from refit_shard.shards_spec.storage.paths import local_path
    from refit_shard.shards_spec.values import whole

    count, seed = whole("--n", args.n, 0, 500), whole("--seed", args.seed, 0, 2**31)
    out = local_path(args.out, "--out")
    _roots(args.root)
    sets, config = _open(args)
    stated = {} if config is None else config.stated
    options = StreamOptions(**stated, occluders=args.occluders)
    facts = _gather(sets, args)
    if not facts.rows and args.where:
        raise UsageError(f"--where: no row of {', '.join(args.places)} meets the condition")
    occluders = open_occluders(options)
    mix = None if config is None else mix_of(facts, config.ratios, options)
    has_policy = config is not None and config.policy is not None
    report = Report(
        title=args.title or ", ".join(one.name for one in facts.sets),
        facts=facts,
        quarantine=tuple(_quarantine(one, args) for one in facts.sets),
        sheet=tuple(
            sheet(
                facts,
                options.policy,
                count=count,
                seed=seed,
                res=options.res,
                occluders=occluders,
            )
        ),
        policy=options.policy,
        policy_of=Path(args.places[0]).name if has_policy else "ReFit",
        occluders=len(occluders or ()),
        where=args.where or "",
        mix=mix,
    )
    page = make_page(report).encode()
    write_file(out, page, "--out")
    if args.json:
        as_json(summary(facts, mix))
    else:
        many = f"{len(facts.sets)} dataset{'s' * (len(facts.sets) != 1)}"
        size = human_bytes(len(page))
        say(f"{out}: {facts.rows} rows of {many}, {size}; open it in a browser")
    return 0
