"""Hypothesis profiles: the number of examples of a search, for each tier of the tests."""

from hypothesis import settings

_EXAMPLES = {"check": 20, "test": 100, "all": 1000}
_NORMAL = _EXAMPLES["test"]


def register_profiles() -> None:
    """Register the profiles; ``--hypothesis-profile`` chooses one, else ``test`` is used."""
    for name, examples in _EXAMPLES.items():
        settings.register_profile(name, max_examples=examples, deadline=None)
    settings.load_profile("test")


def examples(count: int) -> int:
    """``max_examples`` for a test that tries ``count`` examples in ``make test``."""
    return max(1, count * settings().max_examples // _NORMAL)
