"""The worker registry: registration, health checks, and the choice of a worker for an operation."""

import asyncio
import logging

import httpx
from fastapi import APIRouter
from pydantic import BaseModel, Field

from ktrdr.config import HEALTH_INTERVAL, WORKER_TIMEOUT

log = logging.getLogger("ktrdr.api.workers")
router = APIRouter(tags=["workers"])


class Worker(BaseModel):
    worker_id: str
    worker_type: str
    endpoint_url: str
    capabilities: dict = Field(default_factory=dict)
    status: str = "available"
    current_operation: str | None = None


class NoWorker(Exception):
    """No worker of this type took the operation."""


registry: dict[str, Worker] = {}


@router.post("/workers/register")
async def register(worker: Worker):
    registry[worker.worker_id] = worker
    return worker


@router.get("/workers")
async def listing():
    return list(registry.values())


async def check_health_forever():
    while True:
        for worker in list(registry.values()):
            await check_health(worker)
        await asyncio.sleep(HEALTH_INTERVAL)


async def check_health(worker):
    """Asks on a new connection each time, as KTRDR does."""
    try:
        async with httpx.AsyncClient(timeout=5.0) as client:
            health = (await client.get(f"{worker.endpoint_url}/health")).json()
        worker.status = "busy" if health["worker_status"] == "busy" else "available"
        worker.current_operation = health["current_operation"]
    except httpx.HTTPError as error:
        log.warning("Worker %s is not healthy: %s", worker.worker_id, error)
        worker.status = "temporarily_unavailable"


async def dispatch(worker_type, operation, path, body):
    """Gives the operation to the first worker that takes it: 503 means busy, the next one is tried."""
    body = {"task_id": operation.operation_id, **body}
    candidates = [worker for worker in registry.values() if worker.worker_type == worker_type]
    candidates.sort(key=lambda worker: worker.status != "available")
    for worker in candidates:
        log.info("Selected worker %s for operation %s", worker.worker_id, operation.operation_id)
        try:
            async with httpx.AsyncClient(timeout=WORKER_TIMEOUT) as client:
                reply = await client.post(f"{worker.endpoint_url}{path}", json=body)
        except httpx.TransportError as error:
            log.error("Worker %s cannot be reached: %s", worker.worker_id, error)
            worker.status = "temporarily_unavailable"
            continue
        if reply.status_code == 503:
            worker.status = "busy"
            continue
        reply.raise_for_status()
        operation.worker_id = worker.worker_id
        operation.step(0.0, f"started on {worker.worker_id}")
        return
    raise NoWorker(f"no {worker_type} worker is available ({len(candidates)} registered)")
