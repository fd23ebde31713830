"""The operations of bdgf_fast."""

from ..reference import *  # noqa: F403
from ..reference import __all__  # noqa: F401
