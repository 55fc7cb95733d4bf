"""`python -m MedSAM2Lib` is the console script `medsam2`."""

import sys

from MedSAM2Lib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
