"""`python -m runner` is the command `runner`."""

import sys

from runner.cli import main

sys.exit(main())
