"""``python -m topospike`` is the command ``topospike``."""

import sys

from topospike.cli.main import main

sys.exit(main())
