"""The tests need the built module ($PYTHONPATH) and the program ($PIGEONFS_PROGRAM): scripts/test-python sets both."""

import asyncio

import pytest
from pigeonfs.testing import Localnet, localnet  # noqa: F401
from pigeonfs.thin import Config, ThinClient


@pytest.fixture(scope="module")
def network():
    """One network for the tests of a module that leave it as it was."""
    with Localnet() as made:
        yield made


@pytest.fixture
def run(network):
    """Runs a coroutine function that takes a connected client."""

    def run(story, **options):
        async def main():
            async with ThinClient(Config(network.config, **options)) as client:
                return await asyncio.wait_for(story(client), 60)

        return asyncio.run(main())

    return run
