"""Where the daemon is, and who is told of events."""

import sys
from typing import Any, Awaitable, Callable, Dict, Optional

from .codes import ConfigError
from .transport import DialConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Config", "ConfigFile"]

Callback = Optional[Callable[[Dict[str, Any]], Awaitable[None]]]


class ConfigFile:
    """What a thin client's TOML file holds: where the daemon listens."""

    def __init__(self, dial: DialConfig) -> None:
        self.dial = dial

    @classmethod
    def load(cls, toml_path: str) -> "ConfigFile":
        """The configuration of a file. Raises ConfigError for whatever is wrong with it."""
        try:
            with open(toml_path, "rb") as file:
                data = tomllib.load(file)
        except FileNotFoundError as error:
            raise ConfigError(f"config: {toml_path}: file not found") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"config: {toml_path}: TOML parse error: {error}") from error
        unknown = sorted(set(data) - {"Dial"})
        if unknown:
            raise ConfigError(f"config: {toml_path}: unknown top-level key(s) {unknown}; expected exactly ['Dial']")
        if "Dial" not in data:
            raise ConfigError(f"config: {toml_path}: missing required top-level key(s) ['Dial']")
        if not isinstance(data["Dial"], dict):
            raise ConfigError(
                f"config: {toml_path}: [Dial] must be a table containing exactly one of [Dial.Unix] or [Dial.Tcp]"
            )
        try:
            return cls(DialConfig.from_toml_dict(data["Dial"]))
        except ValueError as error:
            raise ConfigError(f"config: {toml_path}: [Dial]: {error}") from error

    def __str__(self) -> str:
        return f"Dial: {self.dial}"


class Config:
    """A configuration file, and who is told of events: coroutine functions that take the event, a dictionary.

    ``on_connection_status`` is told when the daemon gains or loses the mixnet (``is_connected``, ``err``);
    ``on_new_pki_document`` when a document comes (``payload``, CBOR); ``on_message_sent`` when a message to a service left or
    could not (``surbid``, ``err``); ``on_message_reply`` when its reply came (``surbid``, ``payload``);
    ``on_daemon_disconnected`` when the daemon is gone (``is_graceful``, ``error``).

    A daemon gets capabilities and plaintexts. So one on another machine is refused unless ``allow_remote`` is set, and one that
    belongs to another user than this one, root, or the service's own, unless its user id is ``daemon_user``.
    """

    def __init__(
        self,
        filepath: str,
        on_connection_status: Callback = None,
        on_new_pki_document: Callback = None,
        on_message_sent: Callback = None,
        on_message_reply: Callback = None,
        on_daemon_disconnected: Callback = None,
        *,
        allow_remote: bool = False,
        daemon_user: Optional[int] = None,
    ) -> None:
        self.dial = ConfigFile.load(filepath).dial
        self.on_connection_status = on_connection_status
        self.on_new_pki_document = on_new_pki_document
        self.on_message_sent = on_message_sent
        self.on_message_reply = on_message_reply
        self.on_daemon_disconnected = on_daemon_disconnected
        self.allow_remote = allow_remote
        self.daemon_user = daemon_user

    async def handle_connection_status_event(self, event: Dict[str, Any]) -> None:
        if self.on_connection_status:
            await self.on_connection_status(event)

    async def handle_new_pki_document_event(self, event: Dict[str, Any]) -> None:
        if self.on_new_pki_document:
            await self.on_new_pki_document(event)

    async def handle_message_sent_event(self, event: Dict[str, Any]) -> None:
        if self.on_message_sent:
            await self.on_message_sent(event)

    async def handle_message_reply_event(self, event: Dict[str, Any]) -> None:
        if self.on_message_reply:
            await self.on_message_reply(event)

    async def handle_daemon_disconnected_event(self, event: Dict[str, Any]) -> None:
        if self.on_daemon_disconnected:
            await self.on_daemon_disconnected(event)
