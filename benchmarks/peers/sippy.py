"""The Sippy B2BUA, as the package has it, on loopback and without logs, media proxy or accounting.

It lives in an environment of its own under build/, since one of the packages it needs brings a top-level `tests`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PINS = Path(__file__).parents[1] / "sippy.txt"
HOME = Path(__file__).parents[2] / "build" / "sippy"
_PROGRAM = """
import os, signal, sys
from sippy import Udp_server, b2bua_simple
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
Udp_server.Udp_server_opts.nworkers = 1  # its stock three threads reorder messages under load: a 180 after its 200
sys.argv = ["b2bua_simple", "-f", "-l", "127.0.0.1", "-p", sys.argv[1], "-n", f"127.0.0.1:{sys.argv[2]}"]
b2bua_simple.main_func()
"""


def install() -> None:
    """Install it, pinned with hashes, where it is missing."""
    done = HOME / "done"
    if not done.exists():
        print(f"installing the peer of {PINS.name} into {HOME}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        pip = [str(HOME / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, "-r", str(PINS)], check=True)
        done.touch()


@contextlib.contextmanager
def running(listen: int, next_hop: int) -> Iterator[int]:
    """The B2BUA as a process; yields its pid."""
    install()
    command = [str(HOME / "bin" / "python"), "-c", _PROGRAM, str(listen), str(next_hop)]
    environment = os.environ | {"SIPLOG_BEND": "none"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.kill()
