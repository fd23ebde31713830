"""`python -m bdgf_fast` is `bdgf-fast`."""

import sys

from .cli import main

sys.exit(main())
