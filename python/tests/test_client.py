"""What the client promises beyond upstream's: deadlines, cancellation, an end of everything."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading

import pytest
from channel import pair, read, start, write
from pigeonfs.thin import (
    BoxIDNotFoundError,
    Config,
    ConfigError,
    StartResendingCancelledError,
    ThinClient,
    is_expected_outcome,
)

OPERATIONS = int(os.environ.get("PIGEONFS_TEST_OPERATIONS", "400"))


def threads():
    return len(os.listdir("/proc/self/task"))


def test_what_is_written_is_read(run):
    async def story(client):
        channel = await pair(client)
        index = await write(client, b"hello", channel.write_cap, channel.first_message_index)
        assert (await read(client, channel.read_cap, channel.first_message_index))[0] == b"hello"
        with pytest.raises(BoxIDNotFoundError) as missing:
            await read(client, channel.read_cap, index, no_retry_on_box_id_not_found=True)
        assert is_expected_outcome(missing.value)

    run(story)


def test_a_deadline_ends_a_wait(run):
    async def story(client):
        channel = await pair(client)
        with pytest.raises(asyncio.TimeoutError):
            await read(client, channel.read_cap, channel.first_message_index, timeout=0.2)

    run(story)


def test_what_is_cancelled_is_cancelled_at_the_daemon(network, run):
    async def story(client):
        channel = await pair(client)
        envelope = await client.encrypt_read(channel.read_cap, channel.first_message_index)
        for _ in range(3):
            # The same envelope again and again: the one before has gone.
            waiting = asyncio.ensure_future(
                start(client, envelope, read_cap=channel.read_cap, index=channel.first_message_index)
            )
            await client.get_message_box_index_counter(channel.first_message_index)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    run(story)


def test_a_cancel_without_a_daemon_ends_the_wait_at_once(localnet):
    async def main():
        gone = asyncio.Event()

        async def disconnected(_):
            gone.set()

        async with ThinClient(Config(localnet.config, on_daemon_disconnected=disconnected)) as client:
            channel = await pair(client)
            envelope = await client.encrypt_read(channel.read_cap, channel.first_message_index)
            waiting = asyncio.ensure_future(
                start(client, envelope, read_cap=channel.read_cap, index=channel.first_message_index)
            )
            await client.get_message_box_index_counter(channel.first_message_index)
            localnet.close()
            await asyncio.wait_for(gone.wait(), 30)
            await client.cancel_resending_encrypted_message(envelope.envelope_hash)
            with pytest.raises(StartResendingCancelledError):
                await waiting

    asyncio.run(main())


def test_no_daemon_is_told_at_once_and_leaves_nothing(tmp_path):
    config = tmp_path / "nowhere.toml"
    config.write_text(f'[Dial.Unix]\nAddress = "{tmp_path}/none.sock"\n')

    async def main():
        client = ThinClient(Config(str(config)))
        with pytest.raises(ConnectionRefusedError, match="none.sock"):
            await client.start()

    before = threads()
    asyncio.run(main())
    assert threads() == before


def test_a_daemon_on_another_machine_is_refused_unless_it_is_allowed(tmp_path):
    config = tmp_path / "far.toml"
    config.write_text('[Dial.Tcp]\nAddress = "192.0.2.1:64331"\n')

    async def main():
        with pytest.raises(ConnectionRefusedError, match="another machine"):
            await ThinClient(Config(str(config))).start()

    asyncio.run(main())


def test_a_configuration_that_is_wrong_is_refused_in_words(tmp_path):
    config = tmp_path / "wrong.toml"
    for text, told in [
        ("", "missing required top-level"),
        ("nonsense", "TOML parse error"),
        ("[Other]\n", "unknown top-level"),
        ("[Dial]\n", "exactly one dial transport"),
        ("[Dial.Ssh]\n", "unknown subtable"),
        ('[Dial.Unix]\naddress = "/x"\n', "unknown key"),
        ("[Dial.Tcp]\n", "missing required key"),
        ("[Dial.Unix]\nAddress = 1\n", "must be a string"),
    ]:
        config.write_text(text)
        with pytest.raises(ConfigError, match=told):
            Config(str(config))
    with pytest.raises(ConfigError, match="not found"):
        Config(str(tmp_path / "none.toml"))


def test_arguments_that_cannot_be_meant_are_refused(run):
    async def story(client):
        with pytest.raises(ValueError):
            await client.new_keypair(b"short")
        with pytest.raises(TypeError):
            await client.next_message_box_index(object())
        with pytest.raises(ValueError):
            await client.next_message_box_index("text")
        # A daemon hangs up at an index like this one; the call fails with its connection, and the next one works.
        with pytest.raises(ConnectionError):
            await client.next_message_box_index(b"no index")
        assert await pair(client)

    run(story)


def test_stop_ends_all_that_waits(network):
    async def main():
        client = ThinClient(Config(network.config))
        await client.start(asyncio.get_running_loop())
        channel = await pair(client)
        waiting = asyncio.ensure_future(read(client, channel.read_cap, channel.first_message_index))
        await pair(client)
        client.stop()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(waiting, 10)
        with pytest.raises(ConnectionError):
            await pair(client)
        client.stop()

    asyncio.run(main())


def test_ctrl_c_ends_any_wait(network):
    program = """
import asyncio, os, sys
from pigeonfs.thin import Config, ThinClient
from channel import pair, read
async def main():
    async with ThinClient(Config(sys.argv[1])) as client:
        channel = await pair(client)
        waiting = asyncio.ensure_future(read(client, channel.read_cap, channel.first_message_index))
        await pair(client)
        print("waits", flush=True)
        await waiting
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", program, network.config]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "interrupted\n"


def test_many_operations_leave_no_threads_and_no_objects(network, run):
    async def story(client):
        channel = await pair(client)

        async def some(count):
            index = channel.first_message_index
            for _ in range(count // 4):
                # One of each end: an answer, a refusal, a deadline, a cancellation.
                await client.next_message_box_index(index)
                with pytest.raises(Exception, match="failed"):
                    await client.encrypt_write(bytes(100_000), channel.write_cap, index)
                with pytest.raises(asyncio.TimeoutError):
                    await client.next_message_box_index(index, timeout=0)
                waiting = asyncio.ensure_future(client.next_message_box_index(index))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])

        async def counted():
            await client.next_message_box_index(channel.first_message_index)
            gc.collect()
            return threads(), len(gc.get_objects())

        await some(100)
        before = await counted()
        await some(OPERATIONS)
        after = await counted()
        assert after[0] == before[0]
        # The interpreter has some of its own that come and go.
        assert after[1] - before[1] < 60, (before, after)

    before = threads()
    run(story)
    assert threads() == before and threading.active_count() == 1


def test_many_sessions_leave_no_threads_and_no_files(network):
    def files():
        return len(os.listdir("/proc/self/fd"))

    async def one():
        async with ThinClient(Config(network.config)) as client:
            await pair(client)

    asyncio.run(one())
    gc.collect()
    before = threads(), files()
    for _ in range(20):
        asyncio.run(one())
    gc.collect()
    assert (threads(), files()) == before
