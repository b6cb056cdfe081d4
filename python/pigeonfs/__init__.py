"""Pigeonhole channels of the Katzenpost mixnet, for Python.

``pigeonfs.thin`` is the thin client of the Katzenpost daemon (kpclientd) for asyncio. ``pigeonfs.compat`` is the same under
the module names of PyPI's ``katzenpost_thinclient``, for programs that were written for it. ``pigeonfs.testing`` gives tests a
network on this machine.
"""

from ._native import __version__

__all__ = ["__version__"]
