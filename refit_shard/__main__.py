"""What the command ``refit-shard`` and ``python -m refit_shard`` run."""

import resource
import sys

# With less, numpy, OpenCV and Arrow end the process while they are loaded, some without a word.
LEAST_ADDRESSES = 1_000_000_000


def start() -> int:
    """Look at the limit on memory before anything large is loaded, then run the command."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESSES:
        print(
            f"refit-shard: this process may use {limit / 1e9:.2f} GB of addresses, and needs "
            f"{LEAST_ADDRESSES / 1e9:.0f} GB or more: raise the limit (ulimit -v)",
            file=sys.stderr,
        )
        return 1
    try:
        from refit_shard.cli import main
    except KeyboardInterrupt:  # before the command could see to it itself
        print("refit-shard: interrupted", file=sys.stderr)
        return 130

    return main()


if __name__ == "__main__":
    sys.exit(start())
