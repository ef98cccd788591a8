"""Client of the IB host service."""

import httpx

from ktrdr.config import IB_HOST_URL, IB_TIMEOUT, IB_TRIES


class IbError(Exception):
    """The IB host answered, and said that it could not."""


async def post(path, body):
    """Posts to the IB host. Its failures come as HTTP 200 with `success: false`."""
    async with httpx.AsyncClient(base_url=IB_HOST_URL, timeout=IB_TIMEOUT) as client:
        for attempt in range(1, IB_TRIES + 1):
            try:
                reply = await client.post(path, json=body)
                break
            except httpx.TimeoutException:
                if attempt == IB_TRIES:
                    raise
    reply.raise_for_status()
    reply = reply.json()
    if not reply["success"]:
        raise IbError(reply["error"])
    return reply
