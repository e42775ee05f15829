"""What a build is asked for: a dataset, where it is, and how to go about it."""

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
    """One dataset to build. Paths of any kind are held as text.

    ``npz``: path or URL of its annotations. ``root``: folder or URL of its frames. ``out``: folder
    or URL that its shards go to. ``workers``: None for all cores, 0 for this process.
    ``shard_timeout``: seconds that a worker may take for one shard, by default 2 a row and at least
    600. ``max_bad``: the share of rows that may end in quarantine. ``overwrite``: build all
    shards anew beside those that stand, of whatever plan, which go once the new ones are whole.

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
        """Of frame names: those of the call, then those of the dataset."""
        return (*self.options.remaps, *self.dataset.remaps)

    @property
    def keep(self) -> tuple[Keep, ...]:
        """Labels that are carried along: of one name, the call's goes before the dataset's."""
        said = {keep.name: keep for keep in (*self.dataset.keep, *self.options.keep)}
        return tuple(said.values())

    def __post_init__(self) -> None:
        check_dataset_name(self.dataset.name)
        for name in ("npz", "root", "out"):
            hold(self, **{name: location(getattr(self, name), f"--{name}")})
        if self.dataset.cropped and self.options.envelope != FULL_ENVELOPE.scale:
            raise UsageError(
                f"--envelope {self.options.envelope:g}: the images of {self.dataset.name} are "
                "crops already; build it by itself, without --envelope"
            )
        hold(self, max_bad=number("--max-bad", self.max_bad, 0.0, 1.0))
        if self.workers is not None:
            hold(self, workers=whole("--workers", self.workers, 0, 4096))
        for option in ("address", "shard_timeout"):
            if self.workers == 0 and getattr(self, option) is not None:
                name = "--" + option.replace("_", "-")
                raise UsageError(f"--workers 0 builds in this process; it does not go with {name}")
        if self.shard_timeout is not None:
            hold(self, shard_timeout=number("--shard-timeout", self.shard_timeout, 1e-3, 1e6))
