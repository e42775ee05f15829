"""Train HRNet with a pose, shape and camera head on shards; a model to start from, not a method.

    python -m examples.train_hrnet --config configs/config_bedlam.yaml --shards data/shards

Images travel as uint8 and are normalised on the device. A checkpoint holds the model, the optimizer
and the loader's state: the same command again goes on at the next unseen batch.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from examples.hrnet_losses import LossWeights
from examples.hrnet_model import CROPS, PRETRAIN, HumanModel, find_pretrained, load_pretrained
from examples.hrnet_training import Trainer, evaluate
from refit_shard import StreamOptions
from refit_shard.loaders.refit.trainer import get_dataloaders
from refit_shard.loaders.stream.config import read_config
from refit_shard.shards_spec.errors import RefitShardError, UsageError

INTERRUPTED = 130


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def above_zero(text: str) -> float:
    """A finite number above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="train_hrnet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", required=True, metavar="YAML", help="ReFit's: datasets, ratios, LOSS")
    add("--shards", metavar="DIR|URL", help="default the config's DATASET.SHARDS, else data/shards")
    add("--steps", type=positive, default=80_000, help="in all, with the checkpoint's (80000)")
    add("--model", default="hrnet_w48", help="one of timm's hrnet_* (default %(default)s)")
    add(
        "--pretrained",
        metavar="FILE",
        help="weights of the backbone, or none; default the published "
        f"{PRETRAIN}/pose_MODEL_{{{','.join(CROPS)}}}.pth, if it is there",
    )
    add("--device", help="default cuda if there is one, else cpu")
    add("--checkpoint", type=Path, metavar="FILE", help="if it is there, goes on from it")
    add("--save-every", type=positive, default=1000, metavar="STEPS")
    add("--log-every", type=positive, default=10, metavar="STEPS")
    add("--batch-size", type=positive, help="default the config's TRAIN.BATCH_SIZE")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="worker processes; default the config's NUM_WORKERS",
    )
    add("--lr", type=above_zero, default=1e-4, help="of Adam (default %(default)s)")
    add(
        "--amp",
        action=argparse.BooleanOptionalAction,
        help="bfloat16 in the backbone; default on CUDA, as many CPUs are slower with it",
    )
    add(
        "--eval-joints",
        choices=("smpl", "none"),
        default="none",
        help="what validation rows are measured against at the end: SMPL's meshes, or the "
        "labels' own joints (default)",
    )
    return parser


def read_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The config file, with what the command line says instead.

    Raises:
        UsageError: the file is missing, not YAML, or says nothing usable of the data.
    """
    read_config(args.config)  # it says what is wrong with the file
    content: dict[str, Any] = yaml.safe_load(Path(args.config).read_text(encoding="utf-8"))
    if args.shards:
        content["DATASET"]["SHARDS"] = args.shards
    if args.batch_size:
        content["TRAIN"] = (content.get("TRAIN") or {}) | {"BATCH_SIZE": args.batch_size}
    if args.workers is not None:
        content["NUM_WORKERS"] = args.workers
    return content


def prepare_checkpoint(path: Path | None) -> bool:
    """Whether there is one to go on from; else its folder is made now, not after an hour.

    Raises:
        UsageError: there can be no such file.
    """
    if path is None:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--checkpoint {path}: {error.strerror}") from error
    return path.exists()


def find_device(name: str | None) -> torch.device:
    """The device of that name, else CUDA's if there is one, else the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for CUDA
        reason = str(error).split("\n", 1)[0]
        raise UsageError(f"--device {name}: not to be had here: {reason}") from error
    return device


def make_model(args: argparse.Namespace, *, resumed: bool) -> HumanModel:
    """The model, with pretrained weights unless a checkpoint is there to give all.

    Raises:
        UsageError: no such model, or the pretrained weights do not fit.
    """
    model = HumanModel(args.model)
    if resumed or args.pretrained == "none":
        return model
    path = Path(args.pretrained) if args.pretrained else find_pretrained(args.model)
    if path is None:
        print(f"no {PRETRAIN}/pose_{args.model}_*.pth: the backbone begins with random weights")
        return model
    print(f"backbone's weights from {path}")
    for line in load_pretrained(model.backbone, path).lines():
        print(line)
    return model


def run(args: argparse.Namespace) -> None:
    """Train, and measure the validation rows at the end.

    Raises:
        RefitShardError: see its message.
    """
    content = read_settings(args)
    weights, unused = LossWeights.of(content.get("LOSS"))
    device = find_device(args.device)
    train_loader, test_loader = get_dataloaders(
        content,
        options=StreamOptions(image="uint8"),
        eval_joints=args.eval_joints,
        device=device,
    )
    if unused:
        print(f"LOSS: {', '.join(unused)} left out, this example has no such loss")
    torch.manual_seed(train_loader.options.seed)
    resumed = prepare_checkpoint(args.checkpoint)
    model = make_model(args, resumed=resumed)
    amp = device.type == "cuda" if args.amp is None else args.amp
    trainer = Trainer.make(model, weights, train_loader, device, lr=args.lr, amp=amp)
    if resumed:
        trainer.resume(args.checkpoint)
        print(f"{args.checkpoint}: going on after step {trainer.step}")
    trainer.run(
        args.steps,
        checkpoint=args.checkpoint,
        save_every=args.save_every,
        log_every=args.log_every,
    )
    error, rows = evaluate(trainer, test_loader)
    print(f"validation: {error:.1f} mm a joint, over {rows} rows with 3D joints")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code. An error of ours is one line on stderr."""
    args = make_parser().parse_args(argv)
    try:
        run(args)
    except RefitShardError as error:
        print(f"train_hrnet: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("train_hrnet: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
