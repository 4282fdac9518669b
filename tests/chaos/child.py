"""An api or worker process for trees whose `python -m server` is not there: the same serve functions, no more."""

import asyncio
import os
import sys

from server.embedded import Addresses
from server.processes import run_until_stopped
from server.settings import Settings


def main(kind: str) -> int:
    """Serve until told to stop."""
    settings = Settings.read(os.environ)
    assert settings.database_url
    assert settings.redis_url
    addresses = Addresses(settings.database_url, settings.redis_url)

    async def work(stop: asyncio.Event) -> int:
        if kind == "api":
            from server.app import serve_api

            await serve_api(settings, addresses, stop=stop)
        else:
            from server.worker import serve_worker

            await serve_worker(settings, addresses, stop=stop)
        return 0

    return run_until_stopped(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
