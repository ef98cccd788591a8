"""curl doing the plan over one connection, in the words of clients.py."""

import json
import pathlib
import subprocess
import sys
import tempfile

base = sys.argv[1]
plan = json.loads(pathlib.Path(__file__).with_name("plan.json").read_text())
command = ["curl", "--silent", "--show-error"]
targets = []
with tempfile.TemporaryDirectory() as directory:
    for n, step in enumerate(plan):
        target = f"/c/curl/{n}/{step['path']}"
        targets.append(target)
        if n:
            command.append("--next")
        command += ["--silent", "--output", "/dev/null", "--write-out", r"%{http_code} %{size_download} %{local_port}\n"]
        if step["method"] == "HEAD":
            command.append("--head")
        else:
            command += ["--request", step["method"]]
        if "body" in step:
            file = pathlib.Path(directory, f"body-{n}")
            file.write_bytes(b"b" * step["body"])
            command += ["--data-binary", f"@{file}"]
            # Without this curl asks before it sends a long body; that is tested elsewhere.
            command += ["--header", "expect:"]
            if step.get("chunked"):
                command += ["--header", "transfer-encoding: chunked"]
        command.append(base + target)
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
for target, step, line in zip(targets, plan, output.splitlines(), strict=True):
    status, received, port = map(int, line.split())
    print(json.dumps({"path": target, "method": step["method"], "status": status, "sent": step.get("body", 0),
                      "received": received, "local_port": port, "group": "curl"}))
