"""Throwaway folders that an unprivileged database server may enter, which pytest's own (mode 700) are not."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A folder under the temporary directory, readable by all, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="sightline-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
