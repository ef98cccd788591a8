"""A backtest worker: runs a moving-average crossover over a symbol's bars."""

from ktrdr.series import bars
from ktrdr.workers.base import WorkerApp

BARS = 2000
FAST, SLOW = 10, 40


def backtest(operation, request):
    closes = [bar["close"] for bar in bars(request["symbol"], BARS)]
    cash, held, trades = 10_000.0, 0.0, 0
    for day in range(SLOW, BARS):
        if operation.status == "cancelled":
            return
        if day % 100 == 0:
            operation.step(100 * day / BARS, f"bar {day}/{BARS}")
        above = mean(closes, day, FAST) > mean(closes, day, SLOW)
        if above and cash:
            held, cash, trades = cash / closes[day], 0.0, trades + 1
        elif not above and held:
            cash, held, trades = held * closes[day], 0.0, trades + 1
    value = cash + held * closes[-1]
    operation.complete({"trades": trades, "total_return": round(value / 10_000 - 1, 4)})


def mean(closes, day, width):
    return sum(closes[day - width : day]) / width


app = WorkerApp("backtesting", "/backtests/start", backtest, {"cores": 1}).app
