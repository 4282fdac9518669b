"""Who looks at a page: what is meant for the person at this machine is shown to nobody else."""

from ipaddress import ip_address

from starlette.requests import Request


def is_from_this_machine(request: Request) -> bool:
    """Whether the peer is this machine and was not sent here by a name of a stranger's (DNS rebinding)."""
    host = request.url.hostname or ""
    return (
        request.client is not None and _is_loopback(request.client.host) and (host == "localhost" or _is_loopback(host))
    )


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
