"""PyPI's ``katzenpost_thinclient`` 0.0.25 by another implementation: the names are the same, in the same modules.

A program that was written for it says ``import pigeonfs.compat as katzenpost_thinclient``, or imports from ``pigeonfs.compat``
what it imported from there. The table in the package's README names each difference.
"""

from pigeonfs.thin import *  # noqa: F403

from . import core, pigeonhole, transport
from .pigeonhole import *  # noqa: F403
