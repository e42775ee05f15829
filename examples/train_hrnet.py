"""Train HRNet with a head for pose, shape, camera and joints on shards: a simple baseline to start
from.

    python -m examples.train_hrnet --config configs/config_bedlam.yaml --shards data/shards

Images are loaded as uint8 and normalised on the device. A checkpoint holds the model, the optimizer
and the loader's state; the same command with it continues at the next unseen batch.
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
    add(
        "--config",
        required=True,
        metavar="YAML",
        help="a training config such as ReFit's: datasets, ratios, LOSS",
    )
    add(
        "--shards",
        metavar="DIR|URL",
        help="folder of the datasets (default: DATASET.SHARDS of the config, else data/shards)",
    )
    add(
        "--steps",
        type=positive,
        default=80_000,
        metavar="N",
        help="steps in all, including those of the checkpoint (default %(default)s)",
    )
    add("--model", default="hrnet_w48", help="one of timm's hrnet_* (default %(default)s)")
    add(
        "--pretrained",
        metavar="FILE",
        help="weights of the backbone, or none (default: the published "
        f"{PRETRAIN}/pose_MODEL_{{{','.join(CROPS)}}}.pth if it exists)",
    )
    add("--device", help="torch device (default: cuda if available, else cpu)")
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="checkpoint to write; if it exists, training continues from it",
    )
    add(
        "--save-every",
        type=positive,
        default=1000,
        metavar="STEPS",
        help="steps between two checkpoints (default %(default)s)",
    )
    add(
        "--log-every",
        type=positive,
        default=10,
        metavar="STEPS",
        help="steps between two lines of the log (default %(default)s)",
    )
    add(
        "--batch-size",
        type=positive,
        metavar="N",
        help="default: TRAIN.BATCH_SIZE of the config",
    )
    add(
        "--workers",
        type=int,
        metavar="N",
        help="threads of the loader (default: NUM_WORKERS of the config)",
    )
    add(
        "--lr",
        type=above_zero,
        default=1e-4,
        help="learning rate of Adam (default %(default)s)",
    )
    add(
        "--amp",
        action=argparse.BooleanOptionalAction,
        help="use bfloat16 in the backbone (default: only on CUDA; many CPUs are slower with it)",
    )
    add(
        "--eval-joints",
        choices=("smpl", "none"),
        default="none",
        help="joints that validation is measured against at the end: those of SMPL's meshes, or "
        "those of the labels (none, the default)",
    )
    return parser


def read_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The config, with the values that the command line overrides.

    Raises:
        UsageError: the file is missing, not YAML, or does not state the data correctly.
    """
    read_config(args.config)  # raises an error that says what is wrong with the file
    content: dict[str, Any] = yaml.safe_load(Path(args.config).read_text(encoding="utf-8"))
    if args.shards:
        content["DATASET"]["SHARDS"] = args.shards
    if args.batch_size:
        content["TRAIN"] = (content.get("TRAIN") or {}) | {"BATCH_SIZE": args.batch_size}
    if args.workers is not None:
        content["NUM_WORKERS"] = args.workers
    return content


def prepare_checkpoint(path: Path | None) -> bool:
    """True if there is a checkpoint to continue from.

    The folder is made now, so that an error is raised before the training, not at the first save.

    Raises:
        UsageError: the folder cannot be made.
    """
    if path is None:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--checkpoint {path}: {error.strerror}") from error
    return path.exists()


def find_device(name: str | None) -> torch.device:
    """The device of that name; without a name CUDA if available, else the CPU.

    Raises:
        UsageError: the device is not available.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).split("\n", 1)[0]
        raise UsageError(f"--device {name}: not available: {reason}") from error
    return device


def make_model(args: argparse.Namespace, *, resumed: bool) -> HumanModel:
    """The model, with pretrained weights in the backbone unless a checkpoint will be loaded.

    Raises:
        UsageError: timm has no such model, or the pretrained weights do not fit.
    """
    model = HumanModel(args.model)
    if resumed or args.pretrained == "none":
        return model
    path = Path(args.pretrained) if args.pretrained else find_pretrained(args.model)
    if path is None:
        print(f"no {PRETRAIN}/pose_{args.model}_*.pth: the backbone starts with random weights")
        return model
    print(f"backbone weights from {path}")
    for line in load_pretrained(model.backbone, path).lines():
        print(line)
    return model


def run(args: argparse.Namespace) -> None:
    """Train, then measure the error on the validation rows.

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
        print(f"LOSS: {', '.join(unused)} ignored, because this example has no such loss")
    torch.manual_seed(train_loader.options.seed)
    resumed = prepare_checkpoint(args.checkpoint)
    model = make_model(args, resumed=resumed)
    amp = device.type == "cuda" if args.amp is None else args.amp
    trainer = Trainer.make(model, weights, train_loader, device, lr=args.lr, amp=amp)
    if resumed:
        trainer.resume(args.checkpoint)
        print(f"{args.checkpoint}: continuing after step {trainer.step}")
    trainer.run(
        args.steps,
        checkpoint=args.checkpoint,
        save_every=args.save_every,
        log_every=args.log_every,
    )
    error, rows = evaluate(trainer, test_loader)
    print(f"validation: mean joint error {error:.1f} mm, {rows} rows with 3D joints")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; expected errors are one line on stderr."""
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
