"""Annotations as they were downloaded become one npz that a build takes."""

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

    ``sources``: files and folders, all of one data set. ``out``: the npz to write. ``dataset``:
    what they must be; None lets the sources tell. ``smpl``: the folder of SMPL's neutral model and
    ``J_regressor_extra.npy``, which must both be there; None takes DEFAULT_SMPL if they are.

    Raises:
        UsageError: a value is wrong, or a file is not there.
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
            raise UsageError(f"--out {self.out}: is there already; --overwrite replaces a file")
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
    """The files to read, in order, and by whom; ``size``: their bytes."""

    request: ImportRequest
    importer: Importer
    files: tuple[Found, ...]

    @property
    def size(self) -> int:
        return sum(found.size for found in self.files)


@dataclass(frozen=True, kw_only=True)
class ImportSummary:
    """What was imported: rows kept, rows left out by reason, keys of the npz, and keys that it
    lacks with why.
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
    """Find the sources' files, and which importer they are for.

    Raises:
        UsageError: no importer knows them, or not all of them are of one kind.
        SourceError: an archive is damaged.
        ModuleNotFoundError: of the extra ``import``.
    """
    chosen: Importer | None = None
    files: list[Found] = []
    for source in request.sources:
        importer, found = _find(source, request.dataset)
        if chosen is not None and importer is not chosen:
            raise UsageError(
                f"{source}: is {importer.takes}; {request.sources[0]} is {chosen.takes}: import "
                "each into an npz of its own"
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
    raise UsageError(f"{source}: not what is imported, which is: {known}")


def run_import(plan: ImportPlan, on_bytes: Callable[[int], None]) -> ImportSummary:
    """Read all files, then write the npz, whole or not at all.

    ``on_bytes`` hears how many more bytes of the files are done.

    Raises:
        SourceError: a file is not what its data set distributes, or no row is left.
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
    """Refuse rows of another data set than asked for, and none at all."""
    if request.dataset not in (None, gathered.dataset):
        raise UsageError(
            f"{files[0].where}: is of {gathered.dataset!r}, --dataset says {request.dataset!r}"
        )
    if not gathered.rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in gathered.left_out.items())
        raise SourceError(f"{files[0].where}: no row is left ({reasons or 'it holds none'})")
