"""What every worker has: registration with the API, health, one operation at a time, its progress."""

import asyncio
import logging
import os
import uuid
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, HTTPException

from ktrdr import logs
from ktrdr.config import API_URL
from ktrdr.operations import Operations

log = logging.getLogger("ktrdr.workers")


class WorkerApp:
    """A FastAPI app around one `job(operation, request)`, run in a thread beside the event loop."""

    def __init__(self, worker_type, start_path, job, capabilities):
        logs.setup()
        self.worker_type, self.job, self.capabilities = worker_type, job, capabilities
        short = {"backtesting": "backtest"}.get(worker_type, worker_type)
        self.worker_id = os.environ.get("WORKER_ID", f"{short}-worker-{uuid.uuid4().hex[:8]}")
        self.operations = Operations()
        self.current = None
        self.app = FastAPI(title=self.worker_id, lifespan=self.lifespan)
        self.app.post(start_path)(self.start)
        self.app.get("/health")(self.health)
        self.app.get("/api/v1/operations/{operation_id}")(self.status)
        self.app.get("/api/v1/operations/{operation_id}/metrics")(self.metrics)
        self.app.delete("/api/v1/operations/{operation_id}/cancel")(self.cancel)

    @asynccontextmanager
    async def lifespan(self, _app):
        registration = asyncio.create_task(self.register())
        yield
        registration.cancel()

    async def register(self):
        """Tells the API about this worker, again and again until it listens."""
        body = {
            "worker_id": self.worker_id,
            "worker_type": self.worker_type,
            "endpoint_url": f"http://127.0.0.1:{os.environ['WORKER_PORT']}",
            "capabilities": self.capabilities,
        }
        while True:
            try:
                async with httpx.AsyncClient(timeout=5.0) as client:
                    await client.post(f"{API_URL}/api/v1/workers/register", json=body)
                return
            except httpx.TransportError as error:
                log.warning("Registration of %s failed: %s", self.worker_id, error)
                await asyncio.sleep(1.0)

    async def start(self, request: dict):
        if self.current is not None:
            raise HTTPException(503, f"Worker is busy with {self.current.operation_id}")
        operation = self.operations.open(self.worker_type, request["task_id"])
        self.current = operation
        # The loop holds its tasks only weakly.
        self.task = asyncio.create_task(self.run(operation, request))
        return {"success": True, "operation_id": operation.operation_id, "status": "started"}

    async def run(self, operation, request):
        log.info("Operation ID: %s", operation.operation_id)
        try:
            await asyncio.to_thread(self.job, operation, request)
        except Exception as error:  # noqa: BLE001 - whatever happens, the operation must end
            log.exception("Operation %s failed", operation.operation_id)
            operation.fail(f"{type(error).__name__}: {error}")
        finally:
            self.current = None

    async def health(self):
        current = self.current.operation_id if self.current else None
        status = "busy" if current else "idle"
        return {"healthy": True, "worker_status": status, "current_operation": current}

    async def status(self, operation_id: str):
        return {"success": True, "data": self.find(operation_id).public()}

    async def metrics(self, operation_id: str, cursor: int = 0):
        metrics = self.find(operation_id).metrics
        return {"success": True, "data": metrics[cursor:], "new_cursor": len(metrics)}

    async def cancel(self, operation_id: str):
        operation = self.find(operation_id)
        operation.status = "cancelled"
        return {"success": True, "data": operation.public()}

    def find(self, operation_id):
        if operation_id not in self.operations:
            raise HTTPException(404, f"Operation not found: {operation_id}")
        return self.operations[operation_id]
