"""Training data for human mesh recovery: sharded datasets, and a stream of batches from them.

The public classes and functions. Each is imported on first use, so ``import refit_shard`` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refit_shard.loaders.items.draws import Augmentation, Occlusion
    from refit_shard.loaders.items.making import finalize, render
    from refit_shard.loaders.items.occluders import Occluders
    from refit_shard.loaders.items.options import RenderOptions
    from refit_shard.loaders.items.policy import AugmentationPolicy
    from refit_shard.loaders.items.tars import webdataset_item
    from refit_shard.loaders.refit.evaluation import EvaluationLoader
    from refit_shard.loaders.refit.trainer import get_dataloaders
    from refit_shard.loaders.stream.loader import StreamingLoader
    from refit_shard.loaders.stream.options import StreamOptions
    from refit_shard.loaders.stream.transform import BatchTransform
    from refit_shard.shards_spec.reader import Sample, Shard, ShardSet

__version__ = "0.2.0"

__all__ = [
    "Augmentation",
    "AugmentationPolicy",
    "BatchTransform",
    "EvaluationLoader",
    "Occluders",
    "Occlusion",
    "RenderOptions",
    "Sample",
    "Shard",
    "ShardSet",
    "StreamOptions",
    "StreamingLoader",
    "finalize",
    "get_dataloaders",
    "render",
    "webdataset_item",
]

_HOMES = {
    "Augmentation": "loaders.items.draws",
    "AugmentationPolicy": "loaders.items.policy",
    "BatchTransform": "loaders.stream.transform",
    "EvaluationLoader": "loaders.refit.evaluation",
    "Occluders": "loaders.items.occluders",
    "Occlusion": "loaders.items.draws",
    "RenderOptions": "loaders.items.options",
    "Sample": "shards_spec.reader",
    "Shard": "shards_spec.reader",
    "ShardSet": "shards_spec.reader",
    "StreamOptions": "loaders.stream.options",
    "StreamingLoader": "loaders.stream.loader",
    "finalize": "loaders.items.making",
    "get_dataloaders": "loaders.refit.trainer",
    "render": "loaders.items.making",
    "webdataset_item": "loaders.items.tars",
}


def __getattr__(name: str) -> Any:
    """A public class or function, imported from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """All public names, including those that are not imported yet."""
    return sorted({*globals(), *__all__})
