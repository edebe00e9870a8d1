"""`python -m nemojax.cli`, the same as `nemojax`."""

import sys

from nemojax.cli import main

if __name__ == "__main__":
    sys.exit(main())
