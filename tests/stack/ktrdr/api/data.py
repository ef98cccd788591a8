"""Market data: symbols known here, and downloads through the IB host."""

from fastapi import APIRouter
from pydantic import BaseModel

from ktrdr.api import background, ib
from ktrdr.api.operations import operations

router = APIRouter(tags=["data"])

SYMBOLS = ["AAPL", "MSFT", "EURUSD"]


class Download(BaseModel):
    symbol: str
    timeframe: str = "1d"
    mode: str = "tail"
    start_date: str | None = None
    end_date: str | None = None
    # True: answer only when the data is there. KTRDR answers first.
    wait: bool = False


@router.get("/symbols")
async def symbols():
    return {"success": True, "data": [{"symbol": symbol} for symbol in SYMBOLS]}


@router.post("/data/acquire/download")
async def download(request: Download):
    operation = operations.open("data_load", symbol=request.symbol, timeframe=request.timeframe)

    async def work(operation):
        operation.step(10.0, f"requesting {request.symbol} {request.timeframe}")
        contract = {"symbol": request.symbol, "timeframe": request.timeframe}
        await ib.post("/data/validate", contract)
        reply = await ib.post(
            "/data/historical", {**contract, "start": request.start_date, "end": request.end_date}
        )
        operation.complete({"symbol": request.symbol, "rows": len(reply["data"])})

    await background.run(operation, work, request.wait)
    return started(operation)


def started(operation):
    """The reply to a start of any operation; a failure is told in the body, the status stays 200."""
    reply = {
        "success": operation.status != "failed",
        "data": {"operation_id": operation.operation_id, "status": operation.status},
    }
    if operation.error_message is not None:
        reply["error"] = operation.error_message
    return reply
