"""Routes over operations. The state of work in a worker is pulled from that worker, at each question."""

import httpx
from fastapi import APIRouter, HTTPException

from ktrdr.api import workers
from ktrdr.config import WORKER_TIMEOUT
from ktrdr.operations import FINAL, Operations

router = APIRouter(tags=["operations"])
operations = Operations()


@router.get("/operations")
async def listing():
    return {"success": True, "data": [operation.public() for operation in operations.values()]}


@router.get("/operations/{operation_id}")
async def status(operation_id: str):
    operation = find(operation_id)
    if operation.worker_id and operation.status not in FINAL:
        await pull(operation)
    return {"success": True, "data": operation.public()}


@router.delete("/operations/{operation_id}")
async def cancel(operation_id: str):
    operation = find(operation_id)
    if operation.worker_id and operation.status not in FINAL:
        await ask(operation, "DELETE", "/cancel")
    operation.status = "cancelled"
    return {"success": True, "data": operation.public()}


def find(operation_id):
    if operation_id not in operations:
        raise HTTPException(404, f"Operation not found: {operation_id}")
    return operations[operation_id]


async def pull(operation):
    remote = (await ask(operation, "GET", "")).json()["data"]
    operation.status = remote["status"]
    operation.progress = remote["progress"]
    operation.result_summary = remote["result_summary"]
    operation.error_message = remote["error_message"]
    cursor = len(operation.metrics)
    fresh = await ask(operation, "GET", f"/metrics?cursor={cursor}")
    operation.metrics.extend(fresh.json()["data"])


async def ask(operation, method, suffix):
    """Asks the operation's worker about it."""
    url = workers.registry[operation.worker_id].endpoint_url
    async with httpx.AsyncClient(base_url=url, timeout=WORKER_TIMEOUT) as client:
        return await client.request(method, f"/api/v1/operations/{operation.operation_id}{suffix}")
