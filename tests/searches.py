"""How long searches look: profiles of hypothesis, one for each tier of the tests."""

from hypothesis import settings

_EXAMPLES = {"check": 20, "test": 100, "all": 1000}
_NORMAL = _EXAMPLES["test"]


def register_profiles() -> None:
    """Make the profiles known; ``--hypothesis-profile`` chooses one, ``test`` if it does not."""
    for name, examples in _EXAMPLES.items():
        settings.register_profile(name, max_examples=examples, deadline=None)
    settings.load_profile("test")


def examples(count: int) -> int:
    """``max_examples`` for a test that looks at ``count`` of them in ``make test``."""
    return max(1, count * settings().max_examples // _NORMAL)
