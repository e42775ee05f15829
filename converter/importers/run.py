"""Imports annotations as they were downloaded into one npz for a build."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from refit_shard.body_models.smpl import MODEL_NAMES, find_model
from refit_shard.converter.annotations.npz import write_npz
from refit_shard.converter.importers import bedlam, eft, h36m, mpi_inf_3dhp, pw3d
from refit_shard.converter.importers.found import Found
from refit_shard.converter.importers.gathered import Gathered
from refit_shard.converter.importers.importer import Importer, Tools
from refit_shard.shards_spec.errors import SourceError, UsageError
from refit_shard.shards_spec.storage.folder import open_folder
from refit_shard.shards_spec.values import one_of, whole

IMPORTERS: tuple[Importer, ...] = (
    eft.IMPORTER,
    mpi_inf_3dhp.IMPORTER,
    h36m.IMPORTER,
    pw3d.IMPORTER,
    bedlam.IMPORTER,
)
DATASETS: tuple[str, ...] = tuple(name for one in IMPORTERS for name in one.datasets)
DEFAULT_SMPL = Path("data/smpl")
MAX_WORKERS = 1024


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What to import.

    Args:
        sources: files and folders, all of one dataset.
        out: the npz to write.
        dataset: the dataset that the sources must be of; None to recognise it.
        smpl: folder with SMPL's neutral model and ``J_regressor_extra.npy``; both must exist. None
            for DEFAULT_SMPL, where they may be missing.
        workers: number of processes, None for one a core.
        overwrite: True to replace an existing npz.

    Raises:
        UsageError: a value is wrong, or a file is missing.
    """

    sources: tuple[Path, ...]
    out: Path
    dataset: str | None = None
    smpl: Path | None = None
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.dataset is not None:
            one_of("--dataset", self.dataset, DATASETS)
        if self.workers is not None:
            whole("--workers", self.workers, 1, MAX_WORKERS)
        if self.out.suffix != ".npz":
            raise UsageError(f"--out {self.out}: must end in .npz")
        if self.out.exists() and not (self.overwrite and self.out.is_file()):
            raise UsageError(f"--out {self.out}: exists already; --overwrite replaces a file")
        for source in self.sources:
            if not source.exists():
                raise UsageError(f"{source}: no such file or folder")
            if not source.is_file() and not source.is_dir():  # a device or a FIFO has no end
                raise UsageError(f"{source}: not a plain file or folder")
        if self.smpl is not None:
            model = MODEL_NAMES[bedlam.NEUTRAL]
            if find_model(self.smpl, bedlam.NEUTRAL) is None:
                raise UsageError(f"--smpl {self.smpl}: has no {model}.pkl or {model}.npz")
            if not (self.smpl / bedlam.REGRESSOR).is_file():
                raise UsageError(f"--smpl {self.smpl}: has no {bedlam.REGRESSOR}")


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """The files to read, in order, and their importer. ``size``: bytes of all files."""

    request: ImportRequest
    importer: Importer
    files: tuple[Found, ...]

    @property
    def size(self) -> int:
        return sum(found.size for found in self.files)


@dataclass(frozen=True, kw_only=True)
class ImportSummary:
    """The result of an import: numbers of files and rows, numbers of rows left out by reason, keys
    of the npz, keys that it lacks with the reason, and notes for the user.
    """

    dataset: str
    npz: str
    files: int
    rows: int
    left_out: dict[str, int]
    keys: tuple[str, ...]
    absent: dict[str, str]
    notes: tuple[str, ...]


def plan_import(request: ImportRequest) -> ImportPlan:
    """Find the sources' files and the importer for them.

    Raises:
        UsageError: no importer knows the sources, or they are of different kinds.
        SourceError: an archive is damaged.
        ModuleNotFoundError: a module of the extra ``import`` is not installed.
    """
    chosen: Importer | None = None
    files: list[Found] = []
    for source in request.sources:
        importer, found = _find(source, request.dataset)
        if chosen is not None and importer is not chosen:
            raise UsageError(
                f"{source}: is {importer.takes}; {request.sources[0]} is {chosen.takes}: import "
                "each into its own npz"
            )
        chosen = importer
        files += found
    if chosen is None:
        raise UsageError("import-annotations: give the downloaded annotations")
    if len({(found.path.resolve(), found.member) for found in files}) < len(files):
        raise UsageError("a file is given twice")
    for name in chosen.needs:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return ImportPlan(request=request, importer=chosen, files=tuple(files))


def _find(source: Path, dataset: str | None) -> tuple[Importer, list[Found]]:
    importers = [one for one in IMPORTERS if dataset is None or dataset in one.datasets]
    for importer in importers:
        found = importer.find(source, dataset)
        if found:
            return importer, found
    known = "; ".join(one.takes for one in importers)
    raise UsageError(f"{source}: not annotations that can be imported, which are: {known}")


def run_import(plan: ImportPlan, on_bytes: Callable[[int], None]) -> ImportSummary:
    """Read all files, then write the npz, which is renamed once it is complete.

    ``on_bytes``: called with the number of bytes of the files that were read since the last call.

    Raises:
        SourceError: a file does not have the form that its dataset distributes, or no row is left.
        StorageError: the npz cannot be written.
    """
    request = plan.request
    folder = open_folder(request.out.absolute().parent, "--out")
    folder.create()
    gathered = Gathered(dataset=request.dataset or plan.importer.datasets[0], on_bytes=on_bytes)
    tools = Tools(smpl=request.smpl or DEFAULT_SMPL, workers=request.workers)
    plan.importer.read(plan.files, gathered, tools)
    _check(gathered, request, plan.files)
    keys = tuple(gathered.parts)
    with folder.publish(request.out.name) as stream:
        write_npz(stream, gathered.parts)
    return ImportSummary(
        dataset=gathered.dataset,
        npz=str(request.out),
        files=len(plan.files),
        rows=gathered.rows,
        left_out=dict(gathered.left_out),
        keys=keys,
        absent=gathered.absent,
        notes=tuple(gathered.notes),
    )


def _check(gathered: Gathered, request: ImportRequest, files: Sequence[Found]) -> None:
    """Raise an error if the rows are of another dataset than asked for, or if there are none."""
    if request.dataset not in (None, gathered.dataset):
        raise UsageError(
            f"{files[0].where}: is of {gathered.dataset!r}, --dataset says {request.dataset!r}"
        )
    if not gathered.rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in gathered.left_out.items())
        raise SourceError(f"{files[0].where}: no row is left ({reasons or 'it holds none'})")
