"""The log: fields by allow-list, tracebacks without values."""

import json
import subprocess
import sys

SCRIPT = """
from mediaproxy import log
log.configure("test", "json")
log.get().info("call", call="c1", pan="4111111111111111", digits=[4, 1])
try:
    number = "4111111111111111"
    raise ValueError(number)
except ValueError as error:
    log.get().error("failed", exc_info=error)
    log.get().error("failed", exc_info=True)
import logging
logging.getLogger("uvicorn").error("4111111111111111")
raise RuntimeError("4111111111111111")
"""


def test_only_listed_fields_get_out() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=False)
    assert "4111" not in done.stderr + done.stdout
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[0]["warning"] == "2 field(s) withheld"
    assert [line.get("error") for line in lines[1:]] == ["ValueError", "ValueError", "RuntimeError"]
    assert "<string>" in lines[1]["where"]
