"""Shards become batches: a stream that mixes data sets, deterministic to the sample."""

from loaders.options import RenderOptions, StreamOptions
from loaders.policy import Augmentation, AugmentationPolicy, Occlusion
from loaders.render import finalize, render
from loaders.stream import StreamingLoader

__all__ = [
    "Augmentation",
    "AugmentationPolicy",
    "Occlusion",
    "RenderOptions",
    "StreamOptions",
    "StreamingLoader",
    "finalize",
    "render",
]
