#!/usr/bin/env python3
"""Runs a real client (`ib_async` or `ib_insync`) against a gateway and prints what it did, one JSON line per call.

    python tests/gateway/client.py ib_async|ib_insync PORT [--client-id N] [CALL ...]

Calls: `time`, `details:SYMBOL`, `head:SYMBOL`, `history:SYMBOL`, `hourly:SYMBOL`, `pair:EURUSD`, `ticks:SYMBOL`, `pause` (until a line
comes on standard input).
"""

import argparse
import importlib
import json
import logging
import sys

HISTORY_TIMEOUT = 1.5


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=["ib_async", "ib_insync"])
    parser.add_argument("port", type=int)
    parser.add_argument("--client-id", type=int, default=7)
    parser.add_argument("calls", nargs="*")
    options = parser.parse_intermixed_args()
    logging.disable(logging.CRITICAL)
    lib = importlib.import_module(options.library)
    ib, errors = lib.IB(), []
    ib.errorEvent += lambda request_id, code, text, _: errors.append([request_id, code, text])

    def history(contract, size):
        length = {"1 day": "1 M", "1 hour": "7 D"}[size]
        return len(
            ib.reqHistoricalData(contract, "", length, size, "TRADES", True, timeout=HISTORY_TIMEOUT)
        )

    def ticks(contract):
        contract.conId = 265598
        ib.reqMktData(contract, "", False, False)
        ib.sleep(0.2)
        ib.cancelMktData(contract)

    def stock(symbol):
        return lib.Stock(symbol, "SMART", "USD")

    calls = {
        "pause": lambda _: sys.stdin.readline().strip(),
        "time": lambda _: str(ib.reqCurrentTime()),
        "details": lambda s: len(ib.reqContractDetails(stock(s))),
        "head": lambda s: str(ib.reqHeadTimeStamp(stock(s), "TRADES", True)),
        "history": lambda s: history(stock(s), "1 day"),
        "hourly": lambda s: history(stock(s), "1 hour"),
        "pair": lambda s: history(lib.Forex(s), "1 day"),
        "ticks": lambda s: ticks(stock(s)),
    }

    def tell(call, action):
        errors.clear()
        if call == "pause":
            print(json.dumps({"pausing": True}), flush=True)
        try:
            result = action()
        except Exception as error:  # Whatever it is, it is what the client saw.
            print(json.dumps({"call": call, "raised": repr(error), "errors": errors}), flush=True)
            return False
        print(json.dumps({"call": call, "result": result, "errors": errors}), flush=True)
        return True

    def connect():
        ib.connect("127.0.0.1", options.port, clientId=options.client_id, timeout=4)
        return ib.client.serverVersion()

    if tell("connect", connect):
        for call in options.calls:
            name, _, symbol = call.partition(":")
            tell(call, lambda: calls[name](symbol))
        ib.disconnect()


if __name__ == "__main__":
    main()
