"""``python -m refit_shard``."""

import sys

from refit_shard.cli import main

if __name__ == "__main__":
    sys.exit(main())
