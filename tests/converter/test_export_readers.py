"""Exports, each read by the reader that it is for, as docs/guides/export.md says.

What they give is compared with the ``.npy`` of the shards. A reader that is not installed is
skipped: Megatron-Energon is no part of the development packages.
"""

import importlib.util
import io
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import webdataset
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

from tests.converter.exported import assert_same_labels, members, records
from tests.small import Own, read_arrow, refit

WHERE = "source_row > 2"
ROWS = 19


@pytest.fixture(scope="session")
def exports(labelled: Own, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an export in each format, named by it; only read."""
    place = tmp_path_factory.mktemp("exports")
    for form in ("json", "parquet", "wids", "energon"):
        args = ("--format", form, "--out", place / form, "--where", WHERE)
        result = refit("export", labelled.out, *args)
        assert result.code == 0, result.err
    return place


def pixels(tree: Own) -> dict[str, NDArray[np.uint8]]:
    """The stored crops, by key."""
    tars = members(sorted(tree.out.glob("*.tar")))
    return {
        name.removesuffix(".jpg"): np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        for name, data in tars.items()
        if name.endswith(".jpg")
    }


def assert_samples(tree: Own, found: dict[str, tuple[Any, dict[str, Any]]]) -> None:
    """Samples by key, picture and labels each, are those of the set that were chosen."""
    stored, crops = records(tree), pixels(tree)
    wanted = [key for key, record in stored.items() if record["source_row"] > 2]
    assert len(wanted) == ROWS
    assert sorted(found) == sorted(wanted)
    for key, (image, labels) in found.items():
        assert_same_labels(stored[key], labels)
        assert np.array_equal(np.asarray(image), crops[key])


def tars(folder: Path) -> list[str]:
    """The tars of an export, in order."""
    return [str(path) for path in sorted(folder.glob("own/own-*.tar"))]


def test_webdataset_reads_the_tars(labelled: Own, exports: Path) -> None:
    samples = webdataset.WebDataset(tars(exports / "json"), shardshuffle=False).decode("rgb8")
    assert_samples(labelled, {one["__key__"]: (one["jpg"], one["json"]) for one in samples})


def test_images_are_those_of_the_shards_to_the_byte(labelled: Own, exports: Path) -> None:
    old = members(sorted(labelled.out.glob("*.tar")))
    new = members([Path(path) for path in tars(exports / "json")])
    images = {name: data for name, data in new.items() if name.endswith(".jpg")}
    assert images == {name: old[name] for name in images}
    assert [name.partition(".")[2] for name in new] == ["jpg", "json"] * ROWS


def test_json_holds_no_word_that_json_lacks(exports: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    nulls = 0
    for name, data in members([Path(path) for path in tars(exports / "json")]).items():
        if name.endswith(".json"):
            nulls += data.count(b"null")
            json.loads(data, parse_constant=refuse)
    assert nulls == 3  # NaN, inf, -inf


def test_hugging_face_datasets_reads_the_tars(labelled: Own, exports: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    files = {"train": tars(exports / "json")}
    streamed = datasets.load_dataset(
        "webdataset", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path)
    )
    assert_samples(labelled, {one["__key__"]: (one["jpg"], one["json"]) for one in streamed})


@pytest.mark.slow
def test_hugging_face_datasets_makes_a_table_of_them(
    labelled: Own, exports: Path, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    files = {"train": tars(exports / "json")}
    table = datasets.load_dataset(
        "webdataset", data_files=files, split="train", cache_dir=str(tmp_path)
    )
    assert_samples(labelled, {one["__key__"]: (one["jpg"], one["json"]) for one in table})


def test_wids_reads_its_index(labelled: Own, exports: Path, tmp_path: Path) -> None:
    wids = pytest.importorskip("wids")
    index = exports / "wids/own/index.json"
    data_set = wids.ShardListDataset(
        str(index),
        transformations=partial(wids.wids.default_decoder, format="PIL"),
        cache_dir=str(tmp_path),
        keep=True,
    )
    assert len(data_set) == ROWS
    samples = [data_set[place] for place in range(ROWS)]
    assert_samples(labelled, {one["__key__"]: (one[".jpg"], one[".json"]) for one in samples})


def test_duckdb_reads_the_table(labelled: Own, exports: Path) -> None:
    path = exports / "parquet/own.parquet"
    query = f"SELECT shard, key, scale, keypoints[3], extra FROM '{path}' ORDER BY source_row"
    stored = records(labelled)
    rows = duckdb.execute(query).fetchall()
    assert len(rows) == ROWS
    for shard, key, scale, confidence, extra in rows:
        assert (labelled.out / f"{shard}.tar").is_file()
        assert scale == stored[key]["scale"]
        assert confidence == stored[key]["keypoints"][0, 2]
        assert np.array_equal(np.array(extra), stored[key]["extra"].ravel(), equal_nan=True)


def test_pandas_reads_the_table(labelled: Own, exports: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(exports / "parquet/own.parquet")
    stored = records(labelled)
    assert len(frame) == ROWS
    for row in frame.itertuples():
        assert np.array_equal(np.stack(row.pose), stored[row.key]["pose"])
        assert row.word == bytes(stored[row.key]["word"][()]).decode()


def test_the_table_says_where_each_image_lies(labelled: Own, exports: Path) -> None:
    images = members(sorted(labelled.out.glob("*.tar")))
    for row in parquet.read_table(exports / "parquet/own.parquet").to_pylist():
        with (labelled.out / f"{row['shard']}.tar").open("rb") as tar:
            tar.seek(row["jpg_offset"])
            assert tar.read(row["jpg_length"]) == images[f"{row['key']}.jpg"]
        assert row["dataset"] == "own"


def test_the_table_has_the_columns_and_types_of_the_indexes(labelled: Own, exports: Path) -> None:
    schema = parquet.read_schema(exports / "parquet/own.parquet")
    assert schema.names[:2] == ["dataset", "shard"]
    index = read_arrow(next(labelled.out.glob("*.arrow"))).schema
    assert list(schema)[2:] == list(index.remove_metadata())


def test_energon_s_tables_point_at_the_parts(exports: Path) -> None:
    """Read as Energon reads them, without it."""
    place = exports / "energon/own"
    files = tars(exports / "energon")
    with closing(sqlite3.connect(place / ".nv-meta/index.sqlite")) as base:
        samples = base.execute("SELECT * FROM samples").fetchall()
        parts = base.execute("SELECT * FROM sample_parts").fetchall()
    stored = members([Path(path) for path in files])
    keys = {(tar, place): key for tar, key, place, _, _ in samples}
    assert len(keys) == ROWS
    assert len(parts) == 2 * ROWS
    for tar, number, name, offset, size in parts:
        data = Path(files[tar]).read_bytes()[offset : offset + size]
        assert data == stored[f"{keys[tar, number]}.{name}"]
    for tar, path in enumerate(files):
        index = np.fromfile(f"{path}.idx", "<u8").tolist()
        spans = [(begin, begin + size) for one, _, _, begin, size in samples if one == tar]
        assert list(pairwise(index)) == spans
    counts = json.loads((place / ".nv-meta/.info.json").read_bytes())["shard_counts"]
    assert list(counts) == [Path(path).name for path in files]
    assert sum(counts.values()) == ROWS


needs_energon = pytest.mark.skipif(
    importlib.util.find_spec("megatron") is None, reason="needs the package megatron-energon"
)
_ENERGON = """
import json, sys
from megatron.energon import (
    Cooker, DefaultTaskEncoder, Sample, WorkerConfig, basic_sample_keys, edataclass,
    get_loader, get_val_dataset, stateless,
)

@edataclass
class Person(Sample):
    image: object
    labels: dict

@stateless
def cook(sample):
    return Person(**basic_sample_keys(sample), image=sample["jpg"], labels=sample["json"])

class Encoder(DefaultTaskEncoder):
    cookers = [Cooker(cook, has_subflavors={"dataset": "own"})]

    def batch(self, samples):
        return samples

    def encode_batch(self, batch):
        return batch

if __name__ == "__main__":
    loader = get_loader(get_val_dataset(
        sys.argv[1], split_part="train", batch_size=4, task_encoder=Encoder(),
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
    ))
    found = {}
    for batch in loader:
        for one in batch:
            image = (one.image * 255).round().byte().permute(1, 2, 0)
            found[one.__key__.rpartition("/")[2]] = [image.tolist(), one.labels]
    print(json.dumps(found))
"""


@needs_energon
@pytest.mark.slow
def test_energon_cooks_the_samples(labelled: Own, exports: Path, tmp_path: Path) -> None:
    (tmp_path / "read.py").write_text(_ENERGON)
    done = subprocess.run(
        [sys.executable, tmp_path / "read.py", exports / "energon/own"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert_samples(labelled, found)


def energon_tables(place: Path) -> list[Any]:
    """What is in the tables of a prepared dataset, and how they are declared."""
    with closing(sqlite3.connect(place / ".nv-meta/index.sqlite")) as base:
        declared = base.execute("SELECT type, name, tbl_name FROM sqlite_master").fetchall()
        tables = ("samples", "sample_parts")
        return [
            sorted(declared),
            *(base.execute(f"PRAGMA table_info({name})").fetchall() for name in tables),
            *(base.execute(f"SELECT * FROM {name} ORDER BY 1, 2, 3").fetchall() for name in tables),
        ]


@needs_energon
@pytest.mark.slow
def test_energon_prepares_the_same(exports: Path, tmp_path: Path) -> None:
    """Its own ``prepare`` of the same tars writes the same indexes and tables."""
    place, plain = exports / "energon/own", tmp_path / "own"
    shutil.copytree(exports / "json/own", plain)
    how = ("--non-interactive", "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset")
    run = "from megatron.energon.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", run, "prepare", *how, "--num-workers", "1", plain],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert energon_tables(place) == energon_tables(plain)
    for path in plain.glob("*.tar*"):
        assert (place / path.name).read_bytes() == path.read_bytes()
    ours, theirs = (
        json.loads((one / ".nv-meta/.info.json").read_bytes())["shard_counts"]
        for one in (place, plain)
    )
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_data_reads_the_tars(labelled: Own, exports: Path) -> None:
    import ray

    ray.init("local", num_cpus=1, include_dashboard=False, logging_level=logging.ERROR)
    try:
        rows = ray.data.read_webdataset(tars(exports / "json")).take_all()
    finally:
        ray.shutdown()
    assert_samples(labelled, {one["__key__"]: (one["jpg"], one["json"]) for one in rows})
