"""Build requests from the arguments of ``refit-shard build``."""

import argparse
import dataclasses

from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.annotations.keep import parse_keeps, those_there
from refit_shard.converter.annotations.remaps import parse_remaps
from refit_shard.converter.build.plan import BuildOptions
from refit_shard.converter.build.request import BuildRequest
from refit_shard.data_folder import find_data_config, names_of_config
from refit_shard.own_sets import own_set_of_options
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.storage.paths import location


def build_requests(args: argparse.Namespace) -> list[BuildRequest]:
    """One build request for each dataset that the arguments name.

    Raises:
        UsageError: the arguments contradict each other, or a dataset's npz or root is not
            configured.
    """
    out = location(args.out, "--out").rstrip("/")
    if out.endswith(":"):
        raise UsageError(f"--out {args.out!r}: must be a folder or a URL with a bucket")
    options = BuildOptions(
        box_px=args.box_px,
        envelope=args.envelope,
        quality=args.quality,
        samples_per_shard=args.samples_per_shard,
        limit=args.limit,
        seed=args.seed,
        remaps=parse_remaps(args.remap),
        keep=parse_keeps(args.keep),
    )
    places = _places(args)
    kept = those_there(options.keep, [npz for _, npz, _ in places])
    return [
        BuildRequest(
            dataset=dataset,
            npz=npz,
            root=root,
            out=f"{out}/{dataset.name}",
            options=dataclasses.replace(options, keep=keep),
            workers=args.workers,
            address=args.address,
            shard_timeout=args.shard_timeout,
            on_error=args.on_error,
            max_bad=args.max_bad,
            overwrite=args.overwrite,
        )
        for (dataset, npz, root), keep in zip(places, kept, strict=True)
    ]


def _places(args: argparse.Namespace) -> list[tuple[Dataset, str, str]]:
    """The datasets that the arguments name, each with its npz and root."""
    own = any((args.npz, args.root, args.name))
    if bool(args.dataset or args.config) == own:
        raise UsageError(
            "build: say what to build with --dataset NAME, --config YAML or both, "
            "or with --npz FILE --root DIR --name NAME"
        )
    if own:
        declared = own_set_of_options(args.npz, args.root, args.name)
        return [(declared.dataset, declared.npz, declared.root)]
    names, where = args.dataset, ""
    if args.config:
        listed, where = names_of_config(args.config), f"--config {args.config}: "
        names = args.dataset or listed
    config = find_data_config(args.data_config, args.config)
    found = [config.find(name, where) for name in dict.fromkeys(names)]
    return [(dataset, config.npz(dataset), config.root(dataset)) for dataset in found]
