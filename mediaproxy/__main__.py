"""python -m mediaproxy: the same as the `flattone` command."""

import sys

from mediaproxy.cli import main

sys.exit(main())
