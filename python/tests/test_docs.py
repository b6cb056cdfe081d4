"""The examples in the package's documentation, and in its README."""

import doctest
import pathlib

import pigeonfs.thin


def test_the_examples_run(network):
    # The one of the fixture is shown alone: it is a test by itself.
    found = doctest.testmod(pigeonfs.thin, extraglobs={"config": network.config})
    assert found.failed == 0 and found.attempted


def test_the_examples_of_the_readme_run(network):
    readme = pathlib.Path(__file__).parents[1] / "README.md"
    blocks = [block.split("```")[0] for block in readme.read_text().split("```python\n")[1:]]
    assert blocks
    for block in blocks:
        exec(compile(block.replace("thinclient.toml", network.config), str(readme), "exec"), {"__name__": "__main__"})
