"""Addresses, from the environment variables that KTRDR's own deployment sets."""

import os

API_URL = os.environ.get("KTRDR_API_URL", "http://127.0.0.1:8000")
IB_HOST_URL = os.environ.get("IB_HOST_SERVICE_URL", "http://127.0.0.1:5001")
# Seconds between two health checks of a worker.
HEALTH_INTERVAL = float(os.environ.get("KTRDR_HEALTH_INTERVAL", "10"))
