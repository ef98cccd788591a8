"""The API backend: what the CLI and the MCP server talk to."""

import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI

from ktrdr import logs
from ktrdr.api import backtests, data, operations, trainings, workers

logs.setup()


@asynccontextmanager
async def lifespan(_app):
    checks = asyncio.create_task(workers.check_health_forever())
    yield
    checks.cancel()


app = FastAPI(title="KTRDR API", lifespan=lifespan)
for module in (data, trainings, backtests, operations, workers):
    app.include_router(module.router, prefix="/api/v1")


@app.get("/api/v1/health")
async def health():
    return {"status": "ok", "version": "1.0.7.2"}
