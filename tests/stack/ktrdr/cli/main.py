"""The command line: `ktrdr data load AAPL`, `ktrdr train AAPL`, `ktrdr backtest AAPL`."""

import argparse
import time

import httpx

from ktrdr.config import API_URL
from ktrdr.operations import FINAL

# KTRDR's CLI asks for the state of its operation this often (seconds).
POLL_INTERVAL = 0.3


def main():
    options = arguments()
    try:
        with httpx.Client(base_url=f"{API_URL}/api/v1", timeout=30.0) as client:
            client.get("/symbols").raise_for_status()
            return follow(client, *options.request(options))
    except httpx.HTTPError as error:
        print(f"Error: {error}")
        return 1


def arguments():
    parser = argparse.ArgumentParser(prog="ktrdr")
    commands = parser.add_subparsers(required=True)

    data = commands.add_parser("data").add_subparsers(required=True)
    load = data.add_parser("load", help="download bars of a symbol")
    load.add_argument("symbol")
    load.add_argument("--timeframe", default="1d")
    load.add_argument("--wait", action="store_true", help="have the API answer when the data is there")
    load.set_defaults(request=load_request)

    train = commands.add_parser("train", help="train a model on a symbol")
    train.add_argument("symbol")
    train.add_argument("--strategy", default="neuro_mean_reversion")
    train.add_argument("--epochs", type=int, default=10)
    train.add_argument("--wait", action="store_true", help="have the API answer when a worker has it")
    train.set_defaults(request=train_request)

    backtest = commands.add_parser("backtest", help="run a strategy over past data")
    backtest.add_argument("symbol")
    backtest.set_defaults(request=backtest_request)
    return parser.parse_args()


def load_request(options):
    body = {"symbol": options.symbol, "timeframe": options.timeframe, "wait": options.wait}
    return "/data/acquire/download", body


def train_request(options):
    body = {"symbols": [options.symbol], "strategy_name": options.strategy, "epochs": options.epochs}
    return "/trainings/start", {**body, "wait": options.wait}


def backtest_request(options):
    return "/backtests/start", {"symbol": options.symbol}


def follow(client, path, body):
    """Starts an operation and asks after it until it has ended. 0 if it completed, else 1."""
    started = client.post(path, json=body).raise_for_status().json()
    operation = {**started["data"], "error_message": started.get("error")}
    while operation["status"] not in FINAL:
        time.sleep(POLL_INTERVAL)
        operation = client.get(f"/operations/{operation['operation_id']}").raise_for_status().json()["data"]
    print(f"{operation['operation_id']}: {operation['status']} {operation['error_message'] or ''}".rstrip())
    return 0 if operation["status"] == "completed" else 1
