"""Installation with and without a C compiler: both succeed, and the command says which it was."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("compiler", "pump"), [("/bin/false", "pure"), ("cc", "compiled")])
def test_it_installs_with_and_without_a_compiler(tmp_path: Path, compiler: str, pump: str) -> None:
    if pump == "compiled" and shutil.which("cc") is None:
        pytest.fail("no C compiler (Debian: gcc): the compiled half cannot be tested")
    tree, target = tmp_path / "tree", tmp_path / "installed"
    tree.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for package in ("dsp", "sip", "mediaproxy"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    environment = {k: v for k, v in os.environ.items() if k != "FLATTONE_PURE"} | {"CC": compiler}
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", target, "."], cwd=tree, env=environment, check=True, capture_output=True)
    script = f"import sys; sys.path.insert(0, {str(target)!r}); from mediaproxy.cli import main; main(['version'])"
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert f"pump {pump}" in said
