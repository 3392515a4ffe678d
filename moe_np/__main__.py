"""`python -m moe_np` is `moe-np`."""

import sys

from moe_np.cli import main

sys.exit(main())
