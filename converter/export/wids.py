"""Writes the index that wids reads: a list of a dataset's tars with their numbers of samples."""

import json

from refit_shard.converter.export.plan import SetExport

WIDS_INDEX = "index.json"


def wids_index(chosen: SetExport, sizes: dict[str, int]) -> bytes:
    """The bytes of the index. The tars' names are relative to it.

    ``sizes``: bytes of each file in the dataset's folder, by name.
    """
    numbered = [(index, f"{chosen.stem(index)}.tar") for index in range(len(chosen.files))]
    content = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": chosen.dataset,
        "shardlist": [
            {"url": name, "nsamples": chosen.rows_of(index), "filesize": sizes[name]}
            for index, name in numbered
        ],
    }
    return (json.dumps(content, indent=1) + "\n").encode()
