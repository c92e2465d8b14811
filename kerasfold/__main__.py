"""`python -m kerasfold`: the same as the command `kerasfold`."""

import sys

from kerasfold.cli import main

if __name__ == "__main__":
    sys.exit(main())
