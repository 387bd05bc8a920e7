"""`python -m dendrite_automl.cli`: the same as `automl`."""

import sys

from dendrite_automl.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
