"""Shards become batches: a stream that mixes data sets, deterministic to the sample."""

from loaders.occluders import Occluders
from loaders.options import RenderOptions, StreamOptions
from loaders.policy import Augmentation, AugmentationPolicy, Occlusion
from loaders.render import finalize, render
from loaders.stream import StreamingLoader
from loaders.tars import webdataset_item

__all__ = [
    "Augmentation",
    "AugmentationPolicy",
    "Occluders",
    "Occlusion",
    "RenderOptions",
    "StreamOptions",
    "StreamingLoader",
    "finalize",
    "render",
    "webdataset_item",
]
