"""The names of ``katzenpost_thinclient.transport``."""

from pigeonfs.thin.transport import DialConfig, TcpDialConfig, UnixDialConfig, tcp, unix
