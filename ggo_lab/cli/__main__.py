"""`python -m ggo_lab.cli`, as torchrun calls it."""

import sys

from ggo_lab.cli import main

sys.exit(main())
