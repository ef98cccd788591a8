"""Addresses and patience, from environment variables; the defaults are those of KTRDR's own deployment."""

import os

API_URL = os.environ.get("KTRDR_API_URL", "http://127.0.0.1:8000")
IB_HOST_URL = os.environ.get("IB_HOST_SERVICE_URL", "http://127.0.0.1:5001")


def seconds(name, default):
    return float(os.environ.get(name, default))


# Between two health checks of a worker.
HEALTH_INTERVAL = seconds("KTRDR_HEALTH_INTERVAL", 10)
# How long the CLI waits for the API, the API for the IB host, and the API for a worker.
CLI_TIMEOUT = seconds("KTRDR_CLI_TIMEOUT", 30)
IB_TIMEOUT = seconds("KTRDR_IB_TIMEOUT", 30)
WORKER_TIMEOUT = seconds("KTRDR_WORKER_TIMEOUT", 30)
# Tries of one request to the IB host, when they end in a timeout; other failures are final.
IB_TRIES = int(os.environ.get("KTRDR_IB_TRIES", 4))
