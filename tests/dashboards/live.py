"""Runs every expression of dashboards and rules against a Prometheus that scraped an agent, until each has returned data
(a number, not NaN), and exemplars where a panel wants them. Prints what has not after a while; exit status 1 then."""

import argparse
import json
import math
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from queries import every, filled, measured, parsed

parser = argparse.ArgumentParser()
parser.add_argument("prometheus", help="its URL")
parser.add_argument("--patience", type=float, default=60, help="seconds")
options = parser.parse_args()


def ask(path, **parameters):
    url = f"{options.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as e:
        sys.exit(f"{parameters}: {e.read().decode()}")


def numbers(expr):
    """Whether the expression returns any number now."""
    data = ask("query", query=expr)
    results = [data["result"]] if data["resultType"] == "scalar" else [r["value"] for r in data["result"]]
    return any(math.isfinite(float(value)) for _, value in results)


def exemplars(expr):
    now = time.time()
    series = ask("query_exemplars", query=expr, start=now - 600, end=now)
    return any(e["labels"].get("trace_id") for s in series for e in s["exemplars"])


def services():
    return [s for s in ask("label/service_name/values") if s != "ktrdr-agent"]


def forms(query):
    """The query as Grafana sends it, for each service that it may be about."""
    names = services() if "$service" in query.expr else [""]
    for name in names:
        yield filled(query.expr, {"host": ".*", "type": ".*", "gpu": ".*", "service": name})


def lacking(query):
    """What the query does not return, in words."""
    if query.alert:
        return next((f"no data: {expr}" for expr in measured(parsed(query.expr)) if not numbers(expr)), None)
    if not any(numbers(expr) for expr in forms(query)):
        return f"no data: {query.expr}"
    if query.exemplar and not any(exemplars(expr) for expr in forms(query)):
        return f"no exemplars: {query.expr}"
    return None


deadline = time.monotonic() + options.patience
left = [(query, "not asked") for query in every()]
asked = len(left)
while left and time.monotonic() < deadline:
    # The services are known from the first scrape on.
    left = [(query, why) for query, _ in left if (why := lacking(query))]
    if left:
        time.sleep(1)
for query, why in left:
    print(f"{query.where}: {why}")
print(f"{asked - len(left)} of {asked} expressions return data")
sys.exit(1 if left else 0)
