"""Synthetic daily bars: the same symbol always gives the same series."""

import random
from datetime import date, timedelta

FIRST = date(2024, 1, 1)
# Its bars have a hole: a price of 0, by which somebody will divide.
BROKEN = "BROKEN"


def bars(symbol, count):
    """`count` bars of a random walk seeded by the symbol."""
    walk, close, out = random.Random(symbol), 100.0, []
    for index in range(count):
        opened = close
        close = round(max(1.0, opened * (1 + walk.gauss(0, 0.01))), 2)
        spread = abs(walk.gauss(0, 0.3))
        out.append(
            {
                "date": (FIRST + timedelta(days=index)).isoformat(),
                "open": opened,
                "high": round(max(opened, close) + spread, 2),
                "low": round(min(opened, close) - spread, 2),
                "close": close,
                "volume": walk.randrange(10_000, 900_000),
            }
        )
    if symbol == BROKEN:
        out[count // 2]["close"] = 0.0
    return out


def returns(symbol, count):
    closes = [bar["close"] for bar in bars(symbol, count + 1)]
    return [later / earlier - 1 for earlier, later in zip(closes, closes[1:])]
