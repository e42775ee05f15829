"""Entry point of the command ``refit-shard`` and of ``python -m refit_shard``."""

import resource
import sys

# With less, importing numpy, OpenCV or Arrow ends the process, sometimes without a message.
LEAST_ADDRESSES = 1_000_000_000


def start() -> int:
    """Run the command and return its exit code; 1 if the address space limit is too small."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESSES:
        print(
            f"refit-shard: the address space is limited to {limit / 1e9:.2f} GB, and at least "
            f"{LEAST_ADDRESSES / 1e9:.0f} GB is needed: raise the limit (ulimit -v)",
            file=sys.stderr,
        )
        return 1
    try:
        from refit_shard.cli import main
    except KeyboardInterrupt:  # Ctrl-C during the import, before main() can handle it
        print("refit-shard: interrupted", file=sys.stderr)
        return 130

    return main()


if __name__ == "__main__":
    sys.exit(start())
