"""``python -m unitmass``: the command line."""

import sys

from unitmass._cli import main

if __name__ == "__main__":
    sys.exit(main())
