"""The program that calls upstream's whole API, with nothing changed but what it imports."""

import concurrent.futures
import os
import pathlib
import subprocess
import sys

from pigeonfs.testing import Localnet

PROGRAM = pathlib.Path(__file__).parents[2] / "tests/peers/whole_api.py"


def test_a_program_for_upstreams_client_runs_after_one_import_is_changed(tmp_path):
    text = PROGRAM.read_text()
    program = tmp_path / "whole_api.py"
    program.write_text(text.replace("katzenpost_thinclient", "pigeonfs.compat"))
    changed = [line for line, was in zip(program.read_text().splitlines(), text.splitlines()) if line != was]
    assert changed == [
        "import pigeonfs.compat as upstream",
        "from pigeonfs.compat import Config, ConfigFile, ThinClient",
    ]

    def call(transport):
        name = f"@pigeonfs-compat-{os.getpid()}"
        with Localnet(listen=[name] if transport == "abstract" else []) as network:
            abstract = tmp_path / "abstract.toml"
            abstract.write_text(f'[Dial.Unix]\nAddress = "{name}"\n')
            config = {"tcp": network.tcp_config, "unix": network.config, "abstract": str(abstract)}[transport]
            command = [sys.executable, program, config, network.program, network.directory]
            return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for ran in pool.map(call, ["tcp", "unix", "abstract"]):
            assert ran.returncode == 0 and ran.stdout.endswith("whole API exercised\n"), ran.stdout
