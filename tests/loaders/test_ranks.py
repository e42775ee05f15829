"""Which rank a process is: said by somebody, or refused; never guessed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from refit_shard import StreamOptions
from refit_shard.loaders.refit.evaluation import EvaluationLoader
from refit_shard.loaders.stream.ranks import Rank, find_rank
from refit_shard.shards_spec.errors import UsageError
from tests.loaders.streams import stream

NOBODY = StreamOptions()
VARIABLES = (
    *("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_PROCID"),
    *("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"),
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher's environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of one, while the test runs."""
    store = (tmp_path / "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def test_a_process_that_nobody_launched_is_alone() -> None:
    assert find_rank(NOBODY) == Rank(0, 1)


def test_the_environment_s_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun sets it, also below srun or mpirun."""
    for name, value in (("RANK", "2"), ("WORLD_SIZE", "4"), ("SLURM_STEP_NUM_TASKS", "2")):
        monkeypatch.setenv(name, value)
    assert find_rank(NOBODY) == Rank(2, 4)
    assert find_rank(StreamOptions(rank=1, world_size=3)) == Rank(1, 3)


@pytest.mark.parametrize(
    ("rank", "world_size"),
    [
        *[("one", "2"), ("2", "2"), ("-1", "2"), ("0", "0"), ("", "2"), ("1", "")],
        *[(None, "2"), ("0", None)],
    ],
)
def test_nonsense_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, world_size: str | None
) -> None:
    """The line shows what the variables hold; one of them alone says nothing."""
    for name, value in (("RANK", rank), ("WORLD_SIZE", world_size)):
        if value is not None:
            monkeypatch.setenv(name, value)
    said = f"RANK={rank or ''} of WORLD_SIZE={world_size or ''} is not valid"
    with pytest.raises(UsageError, match=said):
        find_rank(NOBODY)


@pytest.mark.parametrize(
    "variable", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE"]
)
def test_one_of_several_processes_of_a_launcher_must_know_its_rank(
    shards: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Each would read the whole stream, as rank 0 of 1; the line says what to pass."""
    monkeypatch.setenv(variable, "4")
    monkeypatch.setenv("SLURM_PROCID", "2")
    named = rf"{variable}=4: .*init_process_group.*rank= and world_size="
    with pytest.raises(UsageError, match=named) as caught:
        stream(shards, rank=None, world_size=None)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=named):
        EvaluationLoader("agora", str(shards / "agora"), NOBODY)
    assert len(stream(shards)) == 3  # with rank= and world_size=
    monkeypatch.setenv(variable, "1")
    assert find_rank(NOBODY) == Rank(0, 1)


def test_a_batch_script_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """sbatch and salloc set these for a single process."""
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert find_rank(NOBODY) == Rank(0, 1)


@pytest.mark.usefixtures("group")
def test_a_process_group_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """srun's tasks that have made one need nothing else."""
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert find_rank(NOBODY) == Rank(0, 1)


@pytest.mark.usefixtures("group")
def test_a_rank_that_has_changed_is_refused_when_iteration_begins(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both; here the group goes, as it comes where it is made after the loader."""
    loader = stream(shards, rank=None, world_size=None)
    evaluation = EvaluationLoader("agora", str(shards / "agora"), StreamOptions(res=32))
    next(iter(loader))
    dist.destroy_process_group()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for one in (loader, evaluation):
        with pytest.raises(
            UsageError, match=r"made by rank 0 of 1, now this process is rank 1 of 2"
        ):
            next(iter(one))
    assert loader.state_dict()["position"] == 12


def test_a_given_rank_does_not_change(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = stream(shards)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert len(next(iter(loader))["imgname"]) == 12
