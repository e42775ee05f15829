"""One stream, to the byte, on either pixel path and any number of threads."""

import pytest

from benchmarks.crops import Crops
from refit_shard import AugmentationPolicy
from tests.loaders.stream_digest import REFITS, THREADS, digests, made_crops
from tests.loaders.test_looks import ALL


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Crops:
    """Made once."""
    return made_crops(tmp_path_factory.mktemp("digest"))


@pytest.mark.parametrize("policy", [REFITS, ALL], ids=["refit's", "all"])
@pytest.mark.parametrize(
    ("batches", "batch"), [(6, 8), pytest.param(1000, 64, marks=pytest.mark.slow)]
)
def test_a_stream_is_one_on_either_path_and_any_threads(
    crops: Crops, batches: int, batch: int, policy: AugmentationPolicy
) -> None:
    found = dict(digests(crops, batches=batches, batch=batch, policy=policy))
    assert len(found) == 2 * len(THREADS)
    assert len(set(found.values())) == 1, found
