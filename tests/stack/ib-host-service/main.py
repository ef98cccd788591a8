"""The IB host service: the one process that may talk to the IB gateway.

Started as `python main.py`, always with reload: the parent binds the port, and a spawned child whose
command line names nothing accepts on it.
"""

import os
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ktrdr import logs  # noqa: E402
from ktrdr.series import FIRST, bars  # noqa: E402

import gateway  # noqa: E402

BARS = {"1d": 28, "1h": 168}

app = FastAPI(title="IB Host Service")
logs.setup()


class Contract(BaseModel):
    symbol: str
    timeframe: str = "1d"
    start: str | None = None
    end: str | None = None


@app.get("/health")
async def health():
    return {"healthy": True, "gateway": gateway.mode()}


@app.post("/data/validate")
async def validate(contract: Contract):
    return answer(lambda: {"valid": contract.symbol.isalpha()})


@app.post("/data/historical")
async def historical(contract: Contract):
    return answer(lambda: {"data": bars(contract.symbol, BARS.get(contract.timeframe, 28))})


@app.get("/data/symbol-info/{symbol}")
async def symbol_info(symbol: str):
    return answer(lambda: {"data": {"symbol": symbol, "exchange": "SMART", "currency": "USD"}})


@app.get("/data/head-timestamp")
async def head_timestamp(symbol: str):
    return answer(lambda: {"symbol": symbol, "head_timestamp": FIRST.isoformat()})


def answer(produce):
    """Any failure is told as HTTP 200 with `success: false`, as KTRDR does. Blocks the loop, as there."""
    try:
        gateway.require()
        return {"success": True, **produce()}
    except OSError as error:
        return {"success": False, "error": f"IB gateway: {error}"}


if __name__ == "__main__":
    port = int(os.environ.get("IB_HOST_PORT", "5001"))
    uvicorn.run("main:app", host="127.0.0.1", port=port, reload=True, loop="asyncio", http="h11")
