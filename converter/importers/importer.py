"""What an importer is: the kind of annotations that it knows, how it finds and reads them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from refit_shard.converter.importers.found import Found
from refit_shard.converter.importers.gathered import Gathered

# A pattern that begins so stands for all that match it, another for the last one by name.
ALL_OF = "*"


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What reading may need besides the source.

    ``smpl``: the folder of body models, which need not be there. ``workers``: processes.
    """

    smpl: Path
    workers: int | None = None


@dataclass(frozen=True, kw_only=True)
class Importer:
    """One kind of annotations, as its site distributes it.

    ``called``: names of the datasets whose npz it gives, the first where the source does not tell;
    and patterns of what each one's site calls its annotations, the best first, "." for the folder
    that holds them. ``takes``: what a SOURCE of it is. ``find``: the files of a source, empty where
    it is of another kind; it is given the dataset that was asked for, or None. ``read``: reads the
    files and adds their rows. ``needs``: modules that it imports in other processes.
    """

    called: Mapping[str, tuple[str, ...]]
    takes: str
    find: Callable[[Path, str | None], list[Found]]
    read: Callable[[Sequence[Found], Gathered, Tools], None]
    needs: tuple[str, ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets whose npz it gives."""
        return tuple(self.called)
