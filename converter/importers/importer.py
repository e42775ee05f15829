"""Describes an importer: which annotations it reads, and how it finds them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from refit_shard.converter.importers.found import Found
from refit_shard.converter.importers.gathered import Gathered

# If several files match a pattern that begins with this, all of them are one source; else only the
# last one by name is.
ALL_OF = "*"


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What an importer may need besides the source.

    ``smpl``: the folder of body models, which may be missing. ``workers``: number of processes,
    None for one a core.
    """

    smpl: Path
    workers: int | None = None


@dataclass(frozen=True, kw_only=True)
class Importer:
    """One kind of annotations, as its site distributes them.

    ``called``: by dataset, the glob patterns of the annotations' names, the best first, with "."
    for the folder that contains them. The first dataset is used if the source does not tell which
    it is. ``takes``: a text that says what a source is. ``find``: returns the files of a source,
    none if it is of another kind; called with the source and the wanted dataset or None. ``read``:
    reads the files and adds their rows. ``needs``: modules that it imports in other processes.
    """

    called: Mapping[str, tuple[str, ...]]
    takes: str
    find: Callable[[Path, str | None], list[Found]]
    read: Callable[[Sequence[Found], Gathered, Tools], None]
    needs: tuple[str, ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets that it can make an npz for."""
        return tuple(self.called)
