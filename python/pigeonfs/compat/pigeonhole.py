"""The names of ``katzenpost_thinclient.pigeonhole``."""

from pigeonfs.thin.pigeonhole import *  # noqa: F403
