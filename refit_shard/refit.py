"""Shards in ReFit's trainer: ``from refit_shard.refit import get_dataloaders``."""

from refit_shard.loaders.refit.trainer import TrainLoader, get_dataloaders

__all__ = ["TrainLoader", "get_dataloaders"]
