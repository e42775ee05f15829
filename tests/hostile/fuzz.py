"""Searches for inputs that crash a parser: ``make fuzz PARSER=npz``; needs atheris.

The search is guided by the lines of the parser that an input reaches. Inputs that it finds are
written to the current folder as ``crash-*``; add a test for each beside the other tests of the
parser.
"""

import contextlib
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import atheris

with atheris.instrument_imports(include=["refit_shard", "zipfile", "tarfile"]):
    from refit_shard.shards_spec.errors import RefitShardError
    from tests.hostile import (
        test_archive,
        test_frame,
        test_importers,
        test_index,
        test_jpeg,
        test_npz,
        test_occluders,
    )

PARSERS: dict[str, Any] = {
    "annotations": test_importers,
    "frame": test_frame,
    "index": test_index,
    "jpeg": test_jpeg,
    "npz": test_npz,
    "occluders": test_occluders,
    "tar": test_archive,
    "zip": SimpleNamespace(make_whole=test_archive.make_whole_zip, parse=test_archive.parse),
}


def main(name: str, *options: str) -> None:
    """Search until the parser fails, or until libFuzzer's ``options`` end the search."""
    parser = PARSERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path, seeds = Path(folder) / "case.arrow", Path(folder) / "seeds"
        seeds.mkdir()
        (seeds / "whole").write_bytes(parser.make_whole(Path(folder)))

        def feed(data: bytes) -> None:
            path.write_bytes(data)
            with contextlib.suppress(RefitShardError):
                parser.parse(path)

        atheris.Setup([sys.argv[0], "-rss_limit_mb=4096", *options, str(seeds)], feed)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
