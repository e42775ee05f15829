"""The index that wids reads: the list of a set's tars, with how many samples each has."""

import json

from refit_shard.converter.export.plan import SetExport

WIDS_INDEX = "index.json"


def wids_index(chosen: SetExport, sizes: dict[str, int]) -> bytes:
    """The bytes of the index; ``sizes``: bytes of each file of the set's folder.

    Names are relative to the index.
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
