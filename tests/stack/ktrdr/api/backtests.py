"""Backtests: dispatched inside the request, unlike trainings."""

from fastapi import APIRouter
from pydantic import BaseModel

from ktrdr.api import background, workers
from ktrdr.api.data import started
from ktrdr.api.operations import operations

router = APIRouter(tags=["backtests"])


class Backtest(BaseModel):
    symbol: str
    timeframe: str = "1d"
    strategy_name: str = "neuro_mean_reversion"
    start_date: str = "2024-01-01"
    end_date: str = "2024-12-31"


@router.post("/backtests/start")
async def start(request: Backtest):
    operation = operations.open("backtesting", **request.model_dump())

    async def work(operation):
        await workers.dispatch("backtesting", operation, "/backtests/start", operation.metadata)

    await background.run(operation, work, wait=True)
    return {**started(operation), "operation_id": operation.operation_id}
