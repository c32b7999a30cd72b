"""`python -m crossloom`."""

import sys

from crossloom.cli import main

sys.exit(main())
