"""What a client of Jaeger that others wrote (jaeger-mcp's library) reads from the agent: URL TOKEN SERVICE."""

import dataclasses
import json
import sys

from jaeger_mcp import JaegerClient

url, token, service = sys.argv[1:]
with JaegerClient.from_env(url=url, token=token) as client:
    found = client.search_traces(service, limit=10)
    json.dump(
        {
            "services": client.list_services(),
            "found": [dataclasses.asdict(t) for t in found],
            "traces": [dataclasses.asdict(client.get_trace(t.trace_id)) for t in found],
            "failed": [t.trace_id for t in client.search_traces(service, tags={"error": "true"})],
            "dependencies": [dataclasses.asdict(d) for d in client.get_dependencies()],
        },
        sys.stdout,
        default=str,  # times
    )
