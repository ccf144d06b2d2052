"""`python -m apps.cli`, where the console script is not installed."""

import sys

from apps.cli.shell import main

sys.exit(main())
