"""The tree's own rules: what each package may import, and that promises name tests that exist."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "dsp": {"numpy", "dsp", "math", "os", "dataclasses", "typing", "functools", "collections", "__future__"},
    "sip": {
        "sip", "contextlib", "dataclasses", "typing", "re", "heapq", "collections", "ipaddress", "functools", "base64",
        "binascii", "hashlib", "hmac", "types", "__future__",
    },
    "mediaproxy/media/wire": {"numpy", "mediaproxy", "dataclasses", "typing", "struct", "__future__"},
    "tests/attacker": {"av", "numpy", "scipy", "sklearn", "dataclasses", "typing", "functools", "mediaproxy", "tests", "dsp", "__future__"},
}  # fmt: skip


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        names = {name.partition(".")[0] for name in imports(path)}
        assert names <= ALLOWED[package], f"{path}: {names - ALLOWED[package]}"


def test_the_attacker_knows_neither_gate_nor_mask() -> None:
    for path in [*(ROOT / "tests/attacker").rglob("*.py"), ROOT / "mediaproxy/demo/attacker.py"]:
        for name in imports(path):
            assert not name.startswith(
                ("dsp.gate", "dsp.mask", "dsp.decoder", "dsp.residue", "mediaproxy.media", "mediaproxy.offline")
            ), path


def test_files_stay_small_enough_to_read_in_one_sitting() -> None:
    for package in ("dsp", "sip", "mediaproxy"):
        for path in (ROOT / package).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 560, path


def test_every_module_says_what_it_is_for() -> None:
    for package in ("dsp", "sip", "mediaproxy", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text())), path


def test_promises_name_tests_that_exist() -> None:
    """docs/promises.md: every `tests/...::name` in it is collected; every promise has one or says "not yet"."""
    text = (ROOT / "docs/promises.md").read_text()
    named = set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", text))
    assert named
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", *sorted({name.partition("::")[0] for name in named})],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=100,
    ).stdout  # fmt: skip
    collected = {line.partition("[")[0] for line in listed.splitlines()}
    assert named <= collected, named - collected
    for row in [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| Promise", "|--"))
    ]:
        assert "`tests/" in row or "not yet" in row, row


def test_the_commands_of_the_contract_have_help() -> None:
    for command in ("demo", "serve", "check-config", "mask", "scan", "verify", "trace", "version"):
        done = subprocess.run(
            [sys.executable, "-m", "mediaproxy", command, "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert "usage: flattone" in done.stdout


def test_a_package_that_shadows_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dsp").mkdir()
    (tmp_path / "dsp" / "__init__.py").write_text("")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from mediaproxy.cli import main; sys.exit(main(['version']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "`dsp`" in done.stderr
