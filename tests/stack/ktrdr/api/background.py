"""Work that goes on after the response: a reused pool thread with an event loop of its own.

This is how KTRDR does it, and it is what makes its calls hard to attribute: one thread serves one
operation after the other, and none of them is the request that asked for it.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger("ktrdr.api.background")
pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="ktrdr-operation")


async def run(operation, work, wait):
    """Runs `work(operation)`: awaited inside the request if `wait`, else after the response."""
    if wait:
        await guarded(operation, work)
    else:
        pool.submit(lambda: asyncio.run(guarded(operation, work)))


async def guarded(operation, work):
    log.info("Operation ID: %s", operation.operation_id)
    try:
        await work(operation)
    except Exception as error:  # noqa: BLE001 - whatever happens, the operation must end
        log.error("Operation %s failed: %s", operation.operation_id, error)
        operation.fail(str(error))
