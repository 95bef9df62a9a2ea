"""``python -m futurechain``."""

import sys

from futurechain.cli import main

if __name__ == "__main__":
    sys.exit(main())
