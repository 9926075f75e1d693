"""Makes the script that the desk page's phone needs: JsSIP (MIT) and what it uses, from npm, held against hashes, in
one file.

    python3 deploy/phone.py /usr/share/flattone/jssip.js      # what [api] phone_script names

Each file becomes a function of (module, exports, require), as Node.js would have it; nothing in it is changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGES = {
    "jssip-3.13.8": "9ba24b71c6ece8375cf259408ff23004969208a31a9826bb9d705e26c5fdc178",
    "debug-4.4.3": "89c1ac9c946ee8905a875837114528e97eeae35e03be3190584b2216af43e4a7",
    "ms-2.1.3": "f6616e15e530ed552f9daa2d3ce71963947c6bc7c98c9b64fd3e673fd02622c6",
    "events-3.3.0": "2c30dd630b58299bdfaac8688f763c6f312d29779c500b1e3701a1d4fb3b534b",
    "sdp-transform-2.15.0": "b1015dc1df8d9a6eaf919947106f3dd2049953bade2b6df0283ce6c02090cfef",
}
"""SHA-256 of each archive."""
ENTRIES = {
    "jssip": "jssip/lib/JsSIP.js",
    "debug": "debug/src/browser.js",
    "ms": "ms/index.js",
    "events": "events/events.js",
    "sdp-transform": "sdp-transform/lib/index.js",
}
"""What a package's name stands for: `main`, or `browser` where it says so."""
_REQUIRE = re.compile(r"require\(['\"]([^'\"]+)['\"]\)")
_HEAD = "// JsSIP 3.13.8 (https://jssip.net), debug, ms, events, sdp-transform: each under its authors' MIT licence.\n"


def packed(name: str, directory: Path) -> dict[str, str]:
    """The files of a package, by their path from its name on. Raises SystemExit where it is not the one wanted."""
    package, _, version = name.rpartition("-")
    command = ["npm", "pack", "--silent", f"{package}@{version}"]
    subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL)
    data = (directory / f"{name}.tgz").read_bytes()
    if hashlib.sha256(data).hexdigest() != PACKAGES[name]:
        raise SystemExit(f"{name}: is not the package it should be")
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None and ("LICENSE" in member.name or member.name.endswith((".js", "package.json"))):
                found[f"{package}/{member.name.partition('/')[2]}"] = file.read().decode()
    return found


def bundled(files: dict[str, str]) -> str:
    """One script out of everything that JsSIP needs of `files`."""
    made: dict[str, str] = {}
    waiting = [ENTRIES["jssip"]]
    while waiting:
        path = waiting.pop()
        if path in made:
            continue
        source = files[path]
        places = {name: resolved(path, name, files) for name in _REQUIRE.findall(source)}
        waiting += places.values()
        body = f"module.exports = {source};" if path.endswith(".json") else source
        made[path] = f"{json.dumps(path)}: [{json.dumps(places)}, (module, exports, require) => {{\n{body}\n}}]"
    used = {path.partition("/")[0] for path in made}
    licences = [text.strip() for path, text in files.items() if "LICENSE" in path and path.partition("/")[0] in used]
    return (
        f"{_HEAD}/*\n" + "\n\n".join(licences).replace("*/", "") + "\n*/\n"
        "(() => {\nconst files = {\n" + ",\n".join(made.values()) + "\n};\nconst made = {};\n"
        "const load = (path) => {\n  if (!(path in made)) {\n    const [places, run] = files[path];\n"
        "    const module = made[path] = { exports: {} };\n"
        "    run(module, module.exports, (name) => load(places[name]));\n  }\n  return made[path].exports;\n};\n"
        f"globalThis.JsSIP = load({json.dumps(ENTRIES['jssip'])});\n}})();\n"
    )


def resolved(path: str, name: str, files: dict[str, str]) -> str:
    """The file that `name` stands for in the file at `path`."""
    if not name.startswith("."):
        return ENTRIES[name]
    plain = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
    return next(place for place in (plain, f"{plain}.js", f"{plain}/index.js") if place in files)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    target = Path(sys.argv[1])
    files: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as directory:
        for name in PACKAGES:
            files |= packed(name, Path(directory))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(bundled(files))


if __name__ == "__main__":
    main()
