"""Fixtures that several modules here share."""

import pytest

from tests.converter.exported import make_set
from tests.small import Own


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """A built set with own labels of every kind; never written to."""
    return make_set(tmp_path_factory.mktemp("labelled"))
