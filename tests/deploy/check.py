"""What no schema knows of deploy/: that its files agree with each other. Prints each defect; exit status 1 if any."""

import pathlib
import re
import sys

import yaml

deploy = pathlib.Path(__file__).resolve().parents[2] / "deploy"
defects = []


def load(path):
    return list(yaml.safe_load_all((deploy / path).read_text()))


def expect(true, what):
    if not true:
        defects.append(what)


def collectors():
    """Every component that a pipeline names is configured, and every one configured is used."""
    for file in sorted((deploy / "collector").glob("*.yaml")):
        config = yaml.safe_load(file.read_text())
        used = {"receivers": set(), "processors": set(), "exporters": set()}
        for pipeline in config["service"]["pipelines"].values():
            for kind, names in used.items():
                names.update(pipeline.get(kind, []))
        for kind, names in used.items():
            expect(names == set(config.get(kind, {})), f"{file.name}: {kind} configured and used differ")
        signals = {name.split("/")[0] for name in config["service"]["pipelines"]}
        expect(signals == {"traces", "metrics", "logs"}, f"{file.name}: a signal of the agent has no pipeline")


def capabilities():
    """One list of capabilities, however it is deployed."""
    agent = load("docker-compose.yml")[0]["services"]["agent"]
    chart = load("helm/ktrdr-agent/values.yaml")[0]
    unit = (deploy / "systemd/ktrdr-agent.service").read_text()
    ambient = re.search(r"^AmbientCapabilities=(.*)$", unit, re.M).group(1).split()
    systemd = {name.removeprefix("CAP_") for name in ambient}
    lists = {"compose": set(agent["cap_add"]), "chart": set(chart["capabilities"]), "systemd": systemd}
    expect(len({frozenset(names) for names in lists.values()}) == 1, f"capabilities differ: {lists}")
    expect(agent["cap_drop"] == ["ALL"] and "privileged" not in agent, "compose: more than the list")


def images():
    """A pinned version each, so that `up` brings the same tomorrow."""
    for name, service in load("docker-compose.yml")[0]["services"].items():
        tag = service["image"].rpartition(":")[2]
        expect(re.fullmatch(r"v?\d+\.\d+\.\d+", tag), f"compose: image of {name} has no version")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                expect((deploy / source).exists(), f"compose: {name} mounts {source}, which is not there")
        for port in service.get("ports", []):
            expect(port.startswith("127.0.0.1:"), f"compose: {name} listens beyond loopback: {port}")


collectors()
capabilities()
images()
for defect in defects:
    print(defect)
sys.exit(1 if defects else 0)
