"""The request for a build: a dataset, its paths, and the options."""

from dataclasses import dataclass, field
from typing import Literal

from refit_shard.converter.annotations.datasets import Dataset
from refit_shard.converter.annotations.keep import Keep
from refit_shard.converter.annotations.remaps import Remaps
from refit_shard.converter.build.plan import BuildOptions
from refit_shard.shards_spec.errors import UsageError
from refit_shard.shards_spec.geometry import FULL_ENVELOPE
from refit_shard.shards_spec.names import check_dataset_name
from refit_shard.shards_spec.storage.paths import location
from refit_shard.shards_spec.values import hold, number, whole


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """One dataset to build. Paths are kept as texts.

    Args:
        dataset: its name and its peculiarities.
        npz: path or URL of its annotations.
        root: folder or URL of its frames.
        out: folder or URL that its shards are written to.
        options: the options that decide the bytes of the shards.
        workers: number of Ray workers, None for one a core, 0 to build in this process.
        address: of a Ray cluster, None to start Ray on this machine.
        shard_timeout: seconds that a worker may take for one shard; None for 2 a row, at least 600.
        on_error: ``quarantine`` to list rows that fail, ``fail`` to stop at the first.
        max_bad: the share of rows that may end in quarantine.
        overwrite: True to build all shards again beside existing ones, which may be of any plan and
            are deleted once the new ones are complete.

    Raises:
        UsageError: a value is out of its bounds.
    """

    dataset: Dataset
    npz: str
    root: str
    out: str
    options: BuildOptions = field(default_factory=BuildOptions)
    workers: int | None = None
    address: str | None = None
    shard_timeout: float | None = None
    on_error: Literal["quarantine", "fail"] = "quarantine"
    max_bad: float = 0.05
    overwrite: bool = False

    @property
    def remaps(self) -> Remaps:
        """The remaps of frame names: those of the options, then those of the dataset."""
        return (*self.options.remaps, *self.dataset.remaps)

    @property
    def keep(self) -> tuple[Keep, ...]:
        """The own labels that are stored too. If the options and the dataset name the same label,
        the options' entry is used.
        """
        by_name = {keep.name: keep for keep in (*self.dataset.keep, *self.options.keep)}
        return tuple(by_name.values())

    def __post_init__(self) -> None:
        check_dataset_name(self.dataset.name)
        for name in ("npz", "root", "out"):
            hold(self, **{name: location(getattr(self, name), f"--{name}")})
        if self.dataset.cropped and self.options.envelope != FULL_ENVELOPE.scale:
            raise UsageError(
                f"--envelope {self.options.envelope:g}: the images of {self.dataset.name} are "
                "crops already; build this dataset alone, without --envelope"
            )
        hold(self, max_bad=number("--max-bad", self.max_bad, 0.0, 1.0))
        if self.workers is not None:
            hold(self, workers=whole("--workers", self.workers, 0, 4096))
        for option in ("address", "shard_timeout"):
            if self.workers == 0 and getattr(self, option) is not None:
                name = "--" + option.replace("_", "-")
                raise UsageError(
                    f"--workers 0 builds in this process and cannot be combined with {name}"
                )
        if self.shard_timeout is not None:
            hold(self, shard_timeout=number("--shard-timeout", self.shard_timeout, 1e-3, 1e6))
