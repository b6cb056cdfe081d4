"""The names of ``katzenpost_thinclient.core``."""

from pigeonfs.thin.client import ThinClient
from pigeonfs.thin.codes import *  # noqa: F403
from pigeonfs.thin.config import Config, ConfigFile
from pigeonfs.thin.core import MAX_MESSAGE_SIZE, MESSAGE_ID_SIZE, SURB_ID_SIZE
from pigeonfs.thin.directory import ServiceDescriptor, blake2_256_sum, find_services, pretty_print_obj
from pigeonfs.thin.geometry import Geometry, PigeonholeGeometry
