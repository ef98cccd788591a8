"""Client of the IB host service."""

import httpx

from ktrdr.config import IB_HOST_URL

TIMEOUT = 30.0
# Tries of one request, when they end in a timeout; other failures are final.
TRIES = 4


class IbError(Exception):
    """The IB host answered, and said that it could not."""


async def post(path, body):
    """Posts to the IB host. Its failures come as HTTP 200 with `success: false`."""
    async with httpx.AsyncClient(base_url=IB_HOST_URL, timeout=TIMEOUT) as client:
        for attempt in range(1, TRIES + 1):
            try:
                reply = (await client.post(path, json=body)).json()
                break
            except httpx.TimeoutException:
                if attempt == TRIES:
                    raise
    if not reply["success"]:
        raise IbError(reply["error"])
    return reply
