"""The IB host service: the one process that may talk to the IB gateway.

Started as `python main.py`, always with reload: the parent binds the port, and a spawned child whose
command line names nothing accepts on it.
"""

import logging
import os
import sys
from pathlib import Path

import ib_async
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ktrdr import logs  # noqa: E402

import gateway  # noqa: E402

# What the gateway is asked for, by timeframe: bar size and length.
TIMEFRAMES = {"1d": ("1 day", "1 M"), "1h": ("1 hour", "7 D")}
CURRENCIES = {"EUR", "USD", "GBP", "JPY", "CHF"}

app = FastAPI(title="IB Host Service")
logs.setup()
log = logging.getLogger("ib.data")


class Contract(BaseModel):
    symbol: str
    timeframe: str = "1d"
    start: str | None = None
    end: str | None = None


def contract_of(symbol):
    if symbol[:3] in CURRENCIES and symbol[3:] in CURRENCIES:
        return ib_async.Forex(symbol)
    return ib_async.Stock(symbol, "SMART", "USD")


@app.get("/health")
async def health():
    return {"healthy": True, "client_id": gateway.CLIENT_ID}


@app.post("/data/validate")
async def validate(contract: Contract):
    return answer(lambda: {"valid": True, "symbol": known(contract.symbol)})


@app.post("/data/historical")
async def historical(contract: Contract):
    size, length = TIMEFRAMES[contract.timeframe]
    wanted = contract_of(contract.symbol)
    log.info("Fetching %s %s", contract.symbol, size)

    async def request(ib):
        patience = gateway.REQUEST_TIMEOUT
        bars = await ib.reqHistoricalDataAsync(wanted, "", length, size, "TRADES", True, timeout=patience)
        if not bars:
            # The library gives up by itself, and takes the request back.
            raise gateway.GatewayError(f"no bars of {contract.symbol} within {patience:g} s")
        return bars

    return answer(lambda: {"data": [bar(b) for b in gateway.ask(request)]})


@app.get("/data/symbol-info/{symbol}")
async def symbol_info(symbol: str):
    async def request(ib):
        return await ib.reqContractDetailsAsync(contract_of(symbol))

    return answer(lambda: {"data": {"symbol": symbol, "exchanges": [d.validExchanges for d in gateway.ask(request)]}})


@app.get("/data/head-timestamp")
async def head_timestamp(symbol: str):
    async def request(ib):
        return await ib.reqHeadTimeStampAsync(contract_of(symbol), "TRADES", True, 1)

    return answer(lambda: {"symbol": symbol, "head_timestamp": str(gateway.ask(request))})


def known(symbol):
    """Symbols are letters; the gateway is not bothered with anything else."""
    if not symbol.isalpha():
        raise gateway.GatewayError(f"{symbol} is no symbol: letters only")
    return symbol


def bar(b):
    return {"date": str(b.date), "open": b.open, "high": b.high, "low": b.low, "close": b.close, "volume": b.volume}


def answer(produce):
    """Any failure of the gateway is told as HTTP 200 with `success: false`, as KTRDR does. Blocks the loop, as there."""
    try:
        return {"success": True, **produce()}
    except (OSError, gateway.GatewayError, ib_async.wrapper.RequestError) as error:
        return {"success": False, "error": f"IB gateway: {str(error) or type(error).__name__}"}


if __name__ == "__main__":
    port = int(os.environ.get("IB_HOST_PORT", "5001"))
    uvicorn.run("main:app", host="127.0.0.1", port=port, reload=True, loop="asyncio", http="h11")
