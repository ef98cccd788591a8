"""Operations: long work with an id, a status and a progress, as the API and every worker keep them."""

import time
import uuid
from dataclasses import asdict, dataclass, field

FINAL = ("completed", "failed", "cancelled")


def new_id(kind):
    stamp = time.strftime("%Y%m%d_%H%M%S", time.gmtime())
    return f"op_{kind}_{stamp}_{uuid.uuid4().hex[:8]}"


@dataclass
class Operation:
    operation_id: str
    operation_type: str
    status: str = "pending"
    progress: dict = field(default_factory=lambda: {"percentage": 0.0, "current_step": None})
    metadata: dict = field(default_factory=dict)
    metrics: list = field(default_factory=list)
    result_summary: dict | None = None
    error_message: str | None = None
    # Where the work runs, when it runs in a worker.
    worker_id: str | None = None

    def step(self, percentage, text):
        self.status = "running"
        self.progress = {"percentage": round(percentage, 1), "current_step": text}

    def complete(self, result):
        self.status, self.result_summary = "completed", result
        self.progress = {"percentage": 100.0, "current_step": None}

    def fail(self, message):
        self.status, self.error_message = "failed", message

    def public(self):
        return {key: value for key, value in asdict(self).items() if key != "metrics"}


class Operations(dict):
    """All operations of one process, by id."""

    def open(self, kind, operation_id=None, **metadata):
        operation = Operation(operation_id or new_id(kind), kind, metadata=metadata)
        self[operation.operation_id] = operation
        return operation
