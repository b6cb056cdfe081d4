"""A Katzenpost network on this machine for tests: ``pigeonfs localnet``, with no mixnet behind it and no anonymity.

The program is $PIGEONFS_PROGRAM, or ``pigeonfs`` in $PATH. With pytest installed the fixture ``localnet`` gives each test a fresh
one:

>>> async def test_something(localnet):  # doctest: +SKIP
...     client = ThinClient(Config(localnet.config))
"""

import os
import shutil
import subprocess
import tempfile
from typing import Any, Iterator, List, Optional, Sequence

__all__ = ["Localnet", "localnet"]


class Localnet:
    """A running network. ``config`` is the path of a configuration that dials its Unix socket, ``tcp_config`` of one that dials
    its port at 127.0.0.1; ``directory`` holds its state. Leaving its context ends it, and removes the directory if it made it."""

    def __init__(self, *arguments: str, directory: Optional[str] = None, listen: Sequence[str] = ()) -> None:
        self.program = os.environ.get("PIGEONFS_PROGRAM") or shutil.which("pigeonfs") or ""
        if not self.program:
            raise FileNotFoundError("no program pigeonfs: install it, or name it by $PIGEONFS_PROGRAM")
        self._made = None if directory else tempfile.TemporaryDirectory(prefix="pigeonfs-localnet-")
        self.directory = directory or os.path.join(self._made.name, "net")  # type: ignore[union-attr]
        self.tcp_config = f"{self.directory}.tcp.toml"
        self.config = os.path.join(self.directory, "thinclient.toml")
        command: List[str] = [self.program, "localnet", "--state", self.directory, "--config-out", self.tcp_config]
        listening = ["127.0.0.1:0", *listen]
        for address in listening:
            command += ["--listen", address]
        self._process = subprocess.Popen([*command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        told = [self._process.stdout.readline() for _ in range(len(listening))]
        if not all(line.startswith(b"listening ") for line in told):
            self.close()
            raise RuntimeError(f"pigeonfs localnet did not start: it ended with code {self._process.returncode}")

    def ctl(self, *words: str) -> str:
        """Runs ``pigeonfs localnet ctl WORDS`` against it, and gives what it prints."""
        command = [self.program, "localnet", "ctl", "--state", self.directory, *words]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def close(self) -> None:
        """Ends the network."""
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._made is not None:
            self._made.cleanup()

    def __enter__(self) -> "Localnet":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def localnet() -> Iterator[Localnet]:
        """A fresh network, gone after the test."""
        with Localnet() as network:
            yield network
