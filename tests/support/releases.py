"""The release before this one, unpacked: its own code, whose processes run beside ours.

It lies in docs/releases as `git archive` wrote it, because a clone may be shallow or no clone at all.
"""

import hashlib
import zipfile
from pathlib import Path

VERSION = "0.1.0"
ARCHIVE = Path(__file__).parents[2] / "docs/releases" / f"{VERSION}.zip"
# What git calls the folders of that release's commit, a3ade55: `git ls-tree a3ade55`. A name is a hash of the content.
ROOMS = {
    "db": "23120960fca6ff5ff36f14e3f05baef4e4b86edf",
    "graph": "47364d59cec6d82fd2bc4b6457c04c5886ffaf1f",
    "jobs": "09358ef7143aabaa8cf7cb97834f5bf817ae5041",
    "rules": "0db155045b66f0f993fc0f6d6de3bd36c7266941",
    "server": "66304972be08b7bb7da8c7626b2a91c056f4a72a",
}


def unpacked(folder: Path) -> Path:
    """The code of the release, in a folder of its own. Raises AssertionError unless each byte is as it was released."""
    tree = folder / VERSION
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tree)
    found = {room: tree_name(tree / room) for room in ROOMS}
    assert found == ROOMS, f"{ARCHIVE.name} is not the code of release {VERSION}"
    assert {path.name for path in tree.iterdir()} == ROOMS.keys()
    return tree


def tree_name(folder: Path) -> str:
    """What git calls a folder of plain files."""
    entries = {}
    for path in folder.iterdir():
        if path.is_dir():
            entries[f"{path.name}/"] = b"40000 %s\0" % path.name.encode() + bytes.fromhex(tree_name(path))
        else:
            entries[path.name] = b"100644 %s\0" % path.name.encode() + _hashed(b"blob", path.read_bytes())
    return _hashed(b"tree", b"".join(entries[name] for name in sorted(entries))).hex()


def _hashed(kind: bytes, content: bytes) -> bytes:
    return hashlib.sha1(b"%s %d\0" % (kind, len(content)) + content, usedforsecurity=False).digest()
