"""Throwaway folders that an unprivileged database server may enter, which pytest's own (mode 700) are not."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.privacy import hear_logs_in


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A folder under the temporary directory, readable by all, removed at the end; its logs are heard before that."""
    folder = Path(tempfile.mkdtemp(prefix="sightline-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        hear_logs_in(folder)
        shutil.rmtree(folder, ignore_errors=True)
