"""A session with the daemon: its life, its events, and what it tells about the network."""

import asyncio
import logging
import os
import random
from typing import Any, Awaitable, Callable, Dict, List, Optional, Tuple, Union

from .._native import Session, cbor_loads
from .codes import (
    THIN_CLIENT_SUCCESS,
    StartResendingCancelledError,
    ThinClientOfflineError,
    thin_client_error_to_string,
)
from .config import Config
from .directory import ServiceDescriptor, blake2_256_sum, find_services
from .geometry import PIGEONHOLE_KEYS, Geometry, PigeonholeGeometry, geometry
from .transport import TcpDialConfig

# The longest frame that is read, in bytes.
MAX_MESSAGE_SIZE = 40 * 1024 * 1024
SURB_ID_SIZE = 16
MESSAGE_ID_SIZE = 16

# Seconds that a question to the daemon itself may take, unless a call says otherwise: an encrypt without a PKI document waits
# for five attempts to fetch one.
LOCAL_TIMEOUT = 300.0
# Seconds that stop() and disconnect() hold the event loop up at most; what is not done then goes on beside it.
_PATIENCE = 0.25
_EPOCHS = 5


class SessionClient:
    """A session with the daemon (kpclientd): its life, its events, and what it tells about the network. The whole of it is
    :class:`~pigeonfs.thin.ThinClient`.

    It belongs to the event loop in which it was started. Between ``start`` and ``stop`` it holds one thread and one connection,
    and connects again whenever the connection breaks; what was unanswered is put again then. Calls take a ``timeout`` in seconds,
    after which they raise TimeoutError; without one, questions to the daemon itself have LOCAL_TIMEOUT, and what goes into the
    mixnet waits without an end. A call that is cancelled is cancelled at the daemon, too.
    """

    def __init__(self, config: Config) -> None:
        if config.dial is None:
            raise RuntimeError("config.dial is None")
        self.config = config
        self.pki_doc: Optional[Dict[Any, Any]] = None
        self.geometry: Optional[Geometry] = None
        self.pigeonhole_geometry: Optional[PigeonholeGeometry] = None
        self.reply_received_event = asyncio.Event()
        # With the token of a session that was left by disconnect(), start() resumes it.
        self.instance_token: bytes = os.urandom(16)
        self.logger = logging.getLogger("thinclient")
        self.task: Optional["asyncio.Task[None]"] = None
        self._documents: Dict[int, Dict[Any, Any]] = {}
        self._is_connected = False
        self._is_linked = False
        self._shutdown_told = False
        self._session: Optional[Session] = None
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._inbound: "asyncio.Queue[Tuple[Any, ...]]" = asyncio.Queue()
        self._ids = 0
        self._waiting: Dict[int, "asyncio.Future[Any]"] = {}
        self._started: Dict[bytes, int] = {}
        self._replies: Dict[bytes, "asyncio.Future[bytes]"] = {}
        self._handlers: "set[asyncio.Task[None]]" = set()

    # Its life

    async def start(self, loop: Optional[asyncio.AbstractEventLoop] = None, *, timeout: Optional[float] = None) -> None:
        """Connects and shakes hands. Raises ConnectionRefusedError where no daemon answers."""
        if self._session is not None:
            raise RuntimeError("the client was started before: make another one")
        running = asyncio.get_running_loop()
        if loop is not None and loop is not running:
            raise RuntimeError("the client belongs to the event loop that runs")
        dial = self.config.dial.resolve()
        self._loop = running
        self._session = Session(
            dial.address,
            dial.network if isinstance(dial, TcpDialConfig) else None,
            bytes(self.instance_token),
            # Whoever looks at frames sees all of them.
            replies=type(self).handle_response is not SessionClient.handle_response,
            daemon_user=getattr(self.config, "daemon_user", None),
            allow_remote=getattr(self.config, "allow_remote", False),
        )
        running.add_reader(self._session.fileno(), self._drain)
        try:
            await asyncio.wait_for(self._shake_hands(), timeout)
        except BaseException:
            self._end(leave=False)
            raise
        self.task = running.create_task(self._work())

    async def __aenter__(self) -> "SessionClient":
        await self.start()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.aclose()

    def stop(self) -> None:
        """Ends the session: calls that wait raise ConnectionError, and the daemon forgets all of it."""
        self._end(leave=False)

    async def aclose(self) -> None:
        """As ``stop``, and waits until the daemon was told and the client's thread is gone; seven seconds at most."""
        self.stop()
        if self.task is not None:
            await asyncio.wait([self.task])

    def disconnect(self) -> None:
        """Ends this client and leaves the session to the daemon, where what was started goes on: a client with the same
        ``instance_token`` resumes it."""
        self._end(leave=True)

    def _end(self, leave: bool) -> None:
        self._is_connected = self._is_linked = False
        if self._session is not None:
            self._session.close(leave, _PATIENCE)
            self._drain()

    def is_connected(self) -> bool:
        """Whether the daemon is connected to the mixnet."""
        return self._is_connected

    # What comes from the session

    def _drain(self) -> None:
        assert self._session is not None and self._loop is not None
        for outcome in self._session.drain():
            kind = outcome[0]
            if kind == "answer":
                future = self._waiting.pop(outcome[1], None)
                if future is not None and not future.done():
                    future.set_result(outcome[2])
            elif kind == "error":
                future = self._waiting.pop(outcome[1], None)
                if future is not None and not future.done():
                    future.set_exception(_exception(outcome[2], outcome[3]))
            else:
                if kind == "closed":
                    self._loop.remove_reader(self._session.fileno())
                    # A call that was cancelled as the session ended has nobody who waits.
                    for future in self._waiting.values():
                        if not future.done():
                            future.set_exception(ConnectionError("the client is closed"))
                    self._waiting.clear()
                self._inbound.put_nowait(outcome)

    async def _shake_hands(self) -> None:
        while True:
            outcome = await self._inbound.get()
            if outcome[0] == "frame":
                self._is_linked = True
                await self.handle_response(outcome[1])
                if outcome[1].get("session_token_reply") is not None:
                    return
            elif outcome[0] == "ended":
                raise ConnectionRefusedError(outcome[1])
            else:
                raise ConnectionError("the client was closed while it connected")

    async def _work(self) -> None:
        shaking = False
        while True:
            outcome = await self._inbound.get()
            if outcome[0] == "closed":
                return
            if outcome[0] == "ended":
                shaking = True
                if self._is_linked:
                    await self._guarded(self._disconnected(outcome[1]))
                continue
            frame = outcome[1]
            self._is_linked = True
            if shaking:
                # In order, so that the handshake is over when it seems to be.
                shaking = frame.get("session_token_reply") is None
                await self._guarded(self.handle_response(frame))
            else:
                # A handler that takes its time holds up no other.
                assert self._loop is not None
                task = self._loop.create_task(self._guarded(self.handle_response(frame)))
                self._handlers.add(task)
                task.add_done_callback(self._handlers.discard)

    async def _guarded(self, handler: Awaitable[None]) -> None:
        try:
            await handler
        except Exception:
            self.logger.exception("an event could not be handled")

    async def _disconnected(self, error: str) -> None:
        self._is_connected = self._is_linked = False
        is_graceful, self._shutdown_told = self._shutdown_told, False
        self.logger.info("the daemon is gone: %s", error)
        await self.config.handle_daemon_disconnected_event({"is_graceful": is_graceful, "error": error})

    async def handle_response(self, response: Dict[str, Any]) -> None:
        """Is given each frame of the daemon and passes events on. Programs that look at frames override it and call it; only then
        it is given replies, too, which are answered whether it was called or not."""
        if response.get("shutdown_event") is not None:
            self._shutdown_told = True
        elif response.get("connection_status_event") is not None:
            event = response["connection_status_event"]
            self.parse_status(event)
            await self.config.handle_connection_status_event(event)
        elif response.get("new_pki_document_event") is not None:
            event = response["new_pki_document_event"]
            if event.get("payload") is not None:
                self.parse_pki_doc(event)
                await self.config.handle_new_pki_document_event(event)
        elif response.get("message_sent_event") is not None:
            event = response["message_sent_event"]
            future = self._replies.get(event.get("surbid") or b"")
            if event.get("err") and future is not None and not future.done():
                future.set_exception(asyncio.TimeoutError(f"the daemon could not send it: {event['err']}"))
            await self.config.handle_message_sent_event(event)
        elif response.get("message_reply_event") is not None:
            event = response["message_reply_event"]
            self.reply_received_event.set()
            future = self._replies.get(event.get("surbid") or b"")
            if future is not None and not future.done():
                future.set_result(event.get("payload") or b"")
            await self.config.handle_message_reply_event(event)

    def parse_status(self, event: Dict[str, Any]) -> None:
        """Takes over what the daemon says of itself."""
        self._is_connected = bool(event.get("is_connected"))
        if event.get("sphinx_geometry") is not None:
            self.geometry = geometry(Geometry, "sphinx_geometry", event["sphinx_geometry"])
        if event.get("pigeonhole_geometry") is not None:
            told = event["pigeonhole_geometry"]
            self.pigeonhole_geometry = geometry(PigeonholeGeometry, "pigeonhole_geometry", told, PIGEONHOLE_KEYS)

    def parse_pki_doc(self, event: Dict[str, Any]) -> None:
        """Takes over a PKI document; those of the last epochs are kept."""
        document = cbor_loads(event["payload"])
        self.pki_doc = document
        epoch = document.get("Epoch")
        if epoch is not None:
            self._documents[epoch] = document
            for old in sorted(self._documents)[:-_EPOCHS]:
                del self._documents[old]

    # Requests

    async def _send_and_wait(
        self, *, query_id: bytes = b"", request: Dict[str, Any], timeout: Optional[float] = LOCAL_TIMEOUT
    ) -> Any:
        """The reply to a request `{kind: body}`; the session makes the query id itself."""
        if self._session is None or self._loop is None:
            raise ConnectionError("the client was not started")
        self._ids += 1
        number = self._ids
        future: "asyncio.Future[Any]" = self._loop.create_future()
        try:
            self._session.put(number, request, timeout)
        except RuntimeError as error:
            raise ConnectionError("the client is closed") from error
        self._waiting[number] = future
        key = _key(request)
        if key is not None:
            self._started[key] = number
        try:
            return await future
        except asyncio.CancelledError:
            self._session.cancel(number)
            raise
        finally:
            self._waiting.pop(number, None)
            if key is not None and self._started.get(key) == number:
                del self._started[key]

    async def _ask(self, kind: str, timeout: Optional[float], **body: Any) -> Dict[str, Any]:
        """The reply to a question, as long as it is no refusal."""
        reply: Dict[str, Any] = await self._send_and_wait(request={kind: body}, timeout=_local(timeout))
        code = reply.get("error_code") or 0
        if code != THIN_CLIENT_SUCCESS:
            raise Exception(f"{kind} failed: {thin_client_error_to_string(code)}")
        return reply

    def _give_up(self, key: bytes) -> bool:
        """Where no daemon is at hand, the end of a started operation without it: it is cancelled there once it is back."""
        if self._is_linked:
            return False
        number = self._started.get(key)
        future = self._waiting.get(number) if number is not None else None
        if number is not None and future is not None and not future.done():
            assert self._session is not None
            self._session.cancel(number)
            future.set_exception(StartResendingCancelledError("start resending cancelled"))
        return True

    # The network

    def pki_document(self) -> Optional[Dict[str, Any]]:
        """The newest PKI document; None until one came."""
        return self.pki_doc

    def pki_document_for_epoch(self, epoch: int) -> Dict[str, Any]:
        """The document of an epoch, or the newest where that one is not at hand."""
        document = self._documents.get(epoch, self.pki_doc)
        if document is None:
            raise Exception("no PKI document available for the requested epoch")
        return document

    async def get_pki_document_raw(self, epoch: int = 0, *, timeout: Optional[float] = None) -> Tuple[bytes, int]:
        """The signed document of an epoch, 0 for the current one, and the epoch that it is of."""
        request = {"get_pki_document": {"epoch": epoch}}
        reply = await self._send_and_wait(request=request, timeout=_local(timeout))
        code = reply.get("error_code") or 0
        if code != THIN_CLIENT_SUCCESS:
            text = thin_client_error_to_string(code)
            raise Exception(f"get_pki_document_raw failed for epoch {epoch}: {text}")
        return reply["payload"], reply.get("epoch") or 0

    async def get_directory_authorities(self, *, timeout: Optional[float] = None) -> List[Dict[str, Any]]:
        """The directory authorities that the daemon is configured with."""
        return (await self._ask("get_directory_authorities", timeout)).get("authorities") or []

    def get_services(self, capability: str) -> List[ServiceDescriptor]:
        """The services that offer a capability. Raises Exception where there is none."""
        document = self.pki_document()
        if document is None:
            raise Exception("pki doc is nil")
        found = find_services(capability, document)
        if not found:
            raise Exception("service not found in pki doc")
        return found

    def get_service(self, service_name: str) -> ServiceDescriptor:
        """One of the services that offer a capability, by chance."""
        return random.choice(self.get_services(service_name))

    def pretty_print_pki_doc(self, doc: Dict[str, Any]) -> None:
        """Decodes the nodes of a document where they stand; it prints nothing, as upstream's."""
        gateways = [cbor_loads(node) for node in doc["GatewayNodes"]]
        services = [cbor_loads(node) for node in doc["ServiceNodes"]]
        topology = [cbor_loads(node) for layer in doc["Topology"] for node in layer]
        doc.update(GatewayNodes=gateways, ServiceNodes=services, Topology=topology)

    # Messages to services

    @staticmethod
    def new_message_id() -> bytes:
        """16 random bytes."""
        return os.urandom(MESSAGE_ID_SIZE)

    def new_surb_id(self) -> bytes:
        """16 random bytes, under which a message's reply comes. None is ever used twice."""
        return os.urandom(SURB_ID_SIZE)

    def new_query_id(self) -> bytes:
        """16 random bytes."""
        return os.urandom(16)

    async def blocking_send_message(
        self, payload: Union[bytes, str], dest_node: bytes, dest_queue: bytes, timeout_seconds: float = 30.0
    ) -> bytes:
        """Sends a message and waits for its reply. Raises TimeoutError where none comes, or where the daemon says that it could
        not send it."""
        surb_id = self.new_surb_id()
        future: "asyncio.Future[bytes]" = asyncio.get_running_loop().create_future()
        self._replies[surb_id] = future

        async def exchange() -> bytes:
            await self.send_message(surb_id, payload, dest_node, dest_queue)
            return await future

        try:
            return await asyncio.wait_for(exchange(), timeout_seconds)
        finally:
            del self._replies[surb_id]
            if not future.cancel() and not future.cancelled():
                future.exception()

    async def send_message(
        self,
        surb_id: bytes,
        payload: Union[bytes, str],
        dest_node: bytes,
        dest_queue: bytes,
        *,
        timeout: Optional[float] = None,
    ) -> None:
        """Hands a message to the daemon; what becomes of it comes as events. Raises ThinClientOfflineError without a mixnet."""
        await self._message("send message", surb_id, payload, dest_node, dest_queue, timeout)

    async def send_message_without_reply(
        self, payload: Union[bytes, str], dest_node: bytes, dest_queue: bytes, *, timeout: Optional[float] = None
    ) -> None:
        """Hands a message to the daemon that has no reply. Raises ThinClientOfflineError without a mixnet."""
        await self._message("send_message_without_reply", None, payload, dest_node, dest_queue, timeout)

    async def _message(
        self,
        what: str,
        surb_id: Optional[bytes],
        payload: Union[bytes, str],
        dest_node: bytes,
        dest_queue: bytes,
        timeout: Optional[float],
    ) -> None:
        if not self._is_connected:
            raise ThinClientOfflineError(f"cannot {what} in offline mode - daemon not connected to mixnet")
        message = {
            "id": None,
            "with_surb": surb_id is not None,
            "surbid": surb_id,
            "destination_id_hash": dest_node,
            "recipient_queue_id": dest_queue,
            "payload": payload.encode() if isinstance(payload, str) else payload,
        }
        await self._send_and_wait(request={"send_message": message}, timeout=_local(timeout))


def _local(timeout: Optional[float]) -> float:
    return LOCAL_TIMEOUT if timeout is None else timeout


def _key(request: Dict[str, Any]) -> Optional[bytes]:
    """What a started operation is cancelled by."""
    body = request.get("start_resending_encrypted_message")
    if body is not None:
        return bytes(body["envelope_hash"])
    body = request.get("start_resending_copy_command")
    return blake2_256_sum(body["write_cap"]) if body is not None else None


def _exception(kind: str, text: str) -> Exception:
    kinds: Dict[str, Callable[[str], Exception]] = {
        "timeout": asyncio.TimeoutError,
        "lost": ConnectionError,
        "invalid": ValueError,
        "cancelled": lambda _: StartResendingCancelledError("start resending cancelled"),
    }
    return kinds.get(kind, Exception)(text)
