"""The whole workflow on small generated datasets: build, verify, preview, read back, stream.

All files are written to ``demo/``, which is emptied first. Run it with ``make demo``.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import webdataset as wds

from benchmarks.trees import Tree, make_config, make_tree
from refit_shard import StreamingLoader
from refit_shard.converter.annotations.datasets import DATASETS

REPOSITORY = Path(__file__).resolve().parent.parent
DEMO = Path("demo")
SHARDS = DEMO / "shards"
FRAMES = {"bedlam": 12, "agora": 9, "coco": 18, "3dpw": 6}


def heading(text: str) -> None:
    """Print the heading of the next step."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def make_data() -> Path:
    """Make datasets in the layouts of the real ones; returns the ``data_config.py`` that names
    them.
    """
    heading("Make small datasets in the layouts of the real ones")
    trees: list[Tree] = []
    for dataset, frames in FRAMES.items():
        tree = make_tree(dataset, DEMO, frames=frames)
        print(f"{tree.name}: {tree.frames} frames, {tree.rows} people in {tree.root}", flush=True)
        trees.append(tree)
    pack_bedlam(trees[0])
    config = make_config(DEMO, trees)
    print(f"{config} states their ROOTs and npz files")
    return config


def pack_bedlam(tree: Tree) -> None:
    """Replace each scene's folder by a tar, as BEDLAM is downloaded."""
    scenes = sorted(folder for folder in tree.root.iterdir() if folder.is_dir())
    for scene in scenes:
        with tarfile.open(tree.root / f"{scene.name}.tar", "w") as tar:
            tar.add(scene, scene.name)
        shutil.rmtree(scene)
    print(f"{tree.name}: packed into {len(scenes)} tars, one for each scene, as downloaded")


def refit_shard(*arguments: object) -> None:
    """Print and run a command; exits with its exit code if it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ refit-shard {shlex.join(words)}", flush=True)
    roots = {dataset.root_variable for dataset in DATASETS.values()}  # they would override the demo
    environment = {name: value for name, value in os.environ.items() if name not in roots}
    done = subprocess.run(
        [sys.executable, "-m", "refit_shard", *words], env=environment, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)


def read_back() -> None:
    """Read the tars with webdataset alone, without code of this project."""
    heading("Read the tars with webdataset alone")
    for dataset in FRAMES:
        tars = sorted(str(tar) for tar in (SHARDS / dataset).glob("*.tar"))
        count = 0
        for sample in wds.WebDataset(tars, shardshuffle=False).decode("rgb8"):
            if count < 2:
                image, labels = sample["jpg"], sample["npy"]
                print(
                    f"{sample['__key__']}: image {image.shape} {image.dtype}, "
                    f"center {labels['center'].round(1)}, scale {labels['scale']:.2f}, "
                    f"keypoints {labels['keypoints'].shape}, pose {labels['pose'].shape}, "
                    f"gender {labels['gender']}"
                )
            count += 1
        print(f"{dataset}: {count} samples in {len(tars)} tar")


def stream_batches() -> None:
    """Stream an epoch with the ratios of ``config_bedlam.yaml`` and draw a batch of it."""
    heading("Stream batches with the ratios of configs/config_bedlam.yaml")
    config = "configs/config_bedlam.yaml"
    loader = StreamingLoader.from_config(
        config, shards=str(SHARDS), batch_size=8, num_workers=2, epoch_samples=160
    )
    for step, batch in enumerate(loader):
        if step < 3:
            names = ", ".join(
                f"{name} {row}"
                for name, row in zip(batch["dataset_name"], batch["sample_index"], strict=True)
            )
            print(f"batch {step}: img {tuple(batch['img'].shape)} {batch['img'].dtype}: {names}")
    print(f"{len(loader)} batches; loader.stats():")
    for name, value in loader.stats().items():
        print(f"  {name}: {value}")
    print(f"loader.state_dict(): {loader.state_dict()}")
    refit_shard("preview", "--stream", config, "--shards", SHARDS, "--out", DEMO / "batch.png")


def main() -> None:
    """Run all steps."""
    os.chdir(REPOSITORY)
    shutil.rmtree(DEMO, ignore_errors=True)
    config = make_data()

    heading("Build the shards")
    chosen = [word for dataset in FRAMES for word in ("--dataset", dataset)]
    refit_shard("build", *chosen, "--data-config", config, "--out", SHARDS)

    heading("Verify and preview the shards")
    refit_shard("verify", SHARDS)
    refit_shard("info", SHARDS)
    for dataset in FRAMES:
        refit_shard("preview", SHARDS / dataset, "--out", DEMO / f"{dataset}.png")

    read_back()
    stream_batches()
    heading("Done")
    pictures = [str(DEMO / f"{name}.png") for name in (*FRAMES, "batch")]
    print(f"Look at the pictures: {', '.join(pictures)}")


if __name__ == "__main__":
    main()
