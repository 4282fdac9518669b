"""The files of others that our pages are made of: `python -m tests.support.vendored` takes them from npm again."""

import base64
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "server" / "pages" / "vendor"
MANIFEST = FOLDER / "manifest.json"
UNPACKED = (".LICENSE",)  # for readers of the repository; everything else is for browsers


class WrongBytes(Exception):
    """What came is not what the manifest pins."""


@dataclass(frozen=True, slots=True)
class Vendored:
    """One file: where it stands in a package, and what its bytes hash to."""

    name: str
    inside: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where we keep it."""
        return FOLDER / (self.name if self.name.endswith(UNPACKED) else f"{self.name}.gz")

    def kept(self) -> bytes:
        """What we have."""
        return gzip.decompress(self.path.read_bytes()) if self.path.suffix == ".gz" else self.path.read_bytes()

    def keep(self, content: bytes) -> None:
        """Write it. A file that holds this content already stays: another zlib would pack it differently."""
        if self.path.exists() and self.kept() == content:
            return
        self.path.write_bytes(gzip.compress(content, 9, mtime=0) if self.path.suffix == ".gz" else content)


@dataclass(frozen=True, slots=True)
class Package:
    """One package of npm, pinned by version and by the hash of its archive."""

    name: str  # with its version
    integrity: str
    files: tuple[Vendored, ...]

    def fetched(self) -> bytes:
        """The archive, from whichever registry npm is told to use. Raises WrongBytes."""
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["npm", "pack", "--silent", self.name], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            (archive,) = Path(folder).iterdir()
            content = archive.read_bytes()
        found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
        if found != self.integrity:
            raise WrongBytes(f"{self.name}: expected {self.integrity}, got {found}")
        return content

    def take(self, archive: bytes) -> None:
        """Keep our files of this archive. Raises WrongBytes."""
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            for file in self.files:
                member = opened.extractfile(f"package/{file.inside}")
                assert member is not None, f"{file.inside} is a file of {self.name}"
                content = member.read()
                if (found := hashlib.sha256(content).hexdigest()) != file.sha256:
                    raise WrongBytes(f"{file.name}: expected {file.sha256}, got {found}")
                file.keep(content)


def packages() -> Iterator[Package]:
    """What the manifest pins."""
    for package in json.loads(MANIFEST.read_text()):
        files = tuple(Vendored(**file) for file in package["files"])
        yield Package(package["package"], package["integrity"], files)


if __name__ == "__main__":
    for package in packages():
        package.take(package.fetched())
        print(f"{package.name}: {', '.join(file.name for file in package.files)}")
    sys.exit()
