"""A training worker: fits a logistic regression that guesses tomorrow's direction from the last days."""

import math
import threading

from ktrdr.series import returns
from ktrdr.workers.base import WorkerApp

LAGS = 8
SAMPLES = 4000
RATE = 0.5
# The feed of this symbol delivers nothing any more: its job stands still until it is cancelled.
STALLED = "STALL"


def train(operation, request):
    symbol, epochs = request["symbols"][0], int(request.get("epochs", 10))
    if symbol == STALLED:
        return wait_for_bars(operation)
    series = [value * 100 for value in returns(symbol, SAMPLES)]
    rows = [(series[i : i + LAGS], series[i + LAGS] > 0) for i in range(len(series) - LAGS)]
    weights, loss = [0.0] * LAGS, 0.0
    for epoch in range(epochs):
        if operation.status == "cancelled":
            return
        operation.step(100 * epoch / epochs, f"epoch {epoch + 1}/{epochs}")
        loss = descend(rows, weights)
        operation.metrics.append({"epoch": epoch + 1, "train_loss": round(loss, 6)})
    operation.complete({"symbol": symbol, "epochs": epochs, "final_loss": round(loss, 6)})


def wait_for_bars(operation):
    operation.step(12.5, "loading bars")
    never = threading.Event()
    while operation.status != "cancelled":
        never.wait(0.05)


def descend(rows, weights):
    """One full-batch step of gradient descent; the mean loss before the step."""
    gradient, loss = [0.0] * LAGS, 0.0
    for features, rose in rows:
        guess = 1 / (1 + math.exp(-sum(w * x for w, x in zip(weights, features))))
        loss -= math.log(guess if rose else 1 - guess)
        for i, x in enumerate(features):
            gradient[i] += (guess - rose) * x
    for i, slope in enumerate(gradient):
        weights[i] -= RATE * slope / len(rows)
    return loss / len(rows)


app = WorkerApp("training", "/training/start", train, {"gpu": False, "cores": 1}).app
