"""The command line: `ktrdr data load AAPL`, `ktrdr train AAPL`, `ktrdr backtest AAPL`, `ktrdr operations …`."""

import argparse
import time

import httpx

from ktrdr.config import API_URL, CLI_TIMEOUT
from ktrdr.operations import FINAL

# KTRDR's CLI asks for the state of its operation this often (seconds).
POLL_INTERVAL = 0.3


def main():
    options = arguments()
    try:
        with httpx.Client(base_url=f"{API_URL}/api/v1", timeout=CLI_TIMEOUT) as client:
            client.get("/symbols").raise_for_status()
            return options.run(client, options)
    except httpx.HTTPError as error:
        print(f"Error: {error or type(error).__name__}")
        return 1


def arguments():
    parser = argparse.ArgumentParser(prog="ktrdr")
    commands = parser.add_subparsers(required=True)

    data = commands.add_parser("data").add_subparsers(required=True)
    load = data.add_parser("load", help="download bars of a symbol")
    load.add_argument("symbol")
    load.add_argument("--timeframe", default="1d")
    load.add_argument("--wait", action="store_true", help="have the API answer when the data is there")
    load.set_defaults(run=start, request=load_request)

    train = commands.add_parser("train", help="train a model on a symbol")
    train.add_argument("symbol")
    train.add_argument("--strategy", default="neuro_mean_reversion")
    train.add_argument("--epochs", default=10, help="a number; the API checks it")
    train.add_argument("--wait", action="store_true", help="have the API answer when a worker has it")
    train.set_defaults(run=start, request=train_request)

    backtest = commands.add_parser("backtest", help="run a strategy over past data")
    backtest.add_argument("symbol")
    backtest.set_defaults(run=start, request=backtest_request)

    for command in (load, train, backtest):
        command.add_argument("--detach", action="store_true", help="do not wait for the end")

    operations = commands.add_parser("operations").add_subparsers(required=True)
    for name, run in (("follow", follow), ("cancel", cancel)):
        command = operations.add_parser(name)
        command.add_argument("operation")
        command.set_defaults(run=lambda client, options, run=run: run(client, options.operation))
    return parser.parse_args()


def load_request(options):
    body = {"symbol": options.symbol, "timeframe": options.timeframe, "wait": options.wait}
    return "/data/acquire/download", body


def train_request(options):
    body = {"symbols": [options.symbol], "strategy_name": options.strategy, "epochs": options.epochs}
    return "/trainings/start", {**body, "wait": options.wait}


def backtest_request(options):
    return "/backtests/start", {"symbol": options.symbol}


def start(client, options):
    """Starts an operation and, unless detached, asks after it until it has ended."""
    path, body = options.request(options)
    started = client.post(path, json=body).raise_for_status().json()
    operation = {**started["data"], "error_message": started.get("error")}
    if options.detach or operation["status"] in FINAL:
        return told(operation, fine=operation["status"] != "failed")
    # Said before it is waited for: whoever is cut off can ask after it.
    print(f"{operation['operation_id']}: started", flush=True)
    return follow(client, operation["operation_id"])


def follow(client, operation_id):
    """Asks after an operation until it has ended. 0 if it completed, else 1."""
    while True:
        operation = client.get(f"/operations/{operation_id}").raise_for_status().json()["data"]
        if operation["status"] in FINAL:
            return told(operation, fine=operation["status"] == "completed")
        time.sleep(POLL_INTERVAL)


def cancel(client, operation_id):
    operation = client.delete(f"/operations/{operation_id}").raise_for_status().json()["data"]
    return told(operation, fine=operation["status"] == "cancelled")


def told(operation, fine):
    print(f"{operation['operation_id']}: {operation['status']} {operation['error_message'] or ''}".rstrip())
    return 0 if fine else 1
