"""Training: the API picks a worker and hands the operation over."""

from fastapi import APIRouter
from pydantic import BaseModel

from ktrdr.api import background, workers
from ktrdr.api.data import started
from ktrdr.api.operations import operations

router = APIRouter(tags=["trainings"])


class Training(BaseModel):
    symbols: list[str]
    timeframes: list[str] = ["1d"]
    strategy_name: str = "neuro_mean_reversion"
    epochs: int = 10
    # True: answer only when a worker has it. KTRDR answers first.
    wait: bool = False


@router.post("/trainings/start")
async def start(request: Training):
    operation = operations.open("training", **request.model_dump(exclude={"wait"}))

    async def work(operation):
        await workers.dispatch("training", operation, "/training/start", operation.metadata)

    await background.run(operation, work, request.wait)
    reply = started(operation)
    return {**reply, "task_id": operation.operation_id, "status": "training_started"}
