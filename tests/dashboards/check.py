"""Dashboards and rules against what the agent can tell, without an agent: every metric is one of its own, every label one
that the metric has, and dashboards fit the provisioning. Metrics come on standard input, {sample name: [label, …]}.
Prints each defect; exit status 1 if there is any."""

import json
import sys

import promql_parser
import yaml

from queries import DASHBOARDS, ROOT, below, every, measured, panels, parsed, recorded

samples = {name: set(labels) for name, labels in json.load(sys.stdin).items()}
samples["up"] = set()
# What a scraper adds, a histogram's bucket has, and the series that takes what does not fit.
EVERYWHERE = {"job", "instance", "otel_metric_overflow"}
defects = []


def expect(true, where, what):
    if not true:
        defects.append(f"{where}: {what}")


def names(labels):
    return set(labels.labels) if labels is not None else set()


def labels_of(expr, where):
    """Checks an expression; gives the labels that its result can have."""
    can, uses, made = set(), set(), None
    for node in below(expr):
        if isinstance(node, promql_parser.VectorSelector):
            expect(node.name in samples, where, f"no such metric: {node.name}")
            has = samples.get(node.name, set()) | EVERYWHERE
            if node.name.endswith("_bucket"):
                has = has | {"le"}
            asked = {m.name for m in node.matchers.matchers}
            expect(asked <= has, where, f"{node.name} has no {sorted(asked - has)}")
            can |= has
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            uses |= set(node.modifier.labels)
            if made is None and str(node.modifier.type).endswith("By"):
                made = set(node.modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None:
            uses |= names(node.modifier.matching)
            uses |= set(node.modifier.group_labels or [])
    expect(uses <= can, where, f"no metric in it has {sorted(uses - can)}")
    return can if made is None else made


def expressions():
    for name, expr in recorded().items():
        # In the order of the file: a rule may use those before it.
        samples[name] = labels_of(parsed(expr), name) & set().union(*samples.values())
    for query in every():
        try:
            expr = parsed(query.expr)
        except (ValueError, KeyError) as e:
            expect(False, query.where, f"{e!r} in {query.expr}")
            continue
        can = labels_of(expr, query.where)
        expect(set(query.legend) <= can, query.where, f"the legend names {sorted(set(query.legend) - can)}")
        if query.alert:
            expect(list(measured(expr)), query.where, "nothing is looked at")


def dashboards():
    provisioned = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/datasources.yml").read_text())
    sources = {(source["type"], source["uid"]) for source in provisioned["datasources"]}
    sources.add(("grafana", "-- Grafana --"))
    uids = set()
    for file in DASHBOARDS:
        board = json.loads(file.read_text())
        expect(board["uid"] == file.stem and board["uid"] not in uids, file.name, "its uid is not its name")
        uids.add(board["uid"])
        text = file.read_text()
        variables = {variable["name"] for variable in board["templating"]["list"]}
        for name in variables:
            expect(f"${name}" in text.replace(f'"${name}"', ""), file.name, f"${name} is not used")
        ids, places = set(), set()
        for panel in panels(board):
            where = f"{file.name}: {panel['title']}"
            expect(panel["id"] not in ids, where, "its id is another's")
            ids.add(panel["id"])
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            expect(not cells & places and at["x"] + at["w"] <= 24, where, "it lies on another")
            places |= cells
            expect(panel["type"] == "row" or panel.get("targets"), where, "it asks nothing")
            for target in panel.get("targets", []):
                expect(target["datasource"] == panel["datasource"], where, "its data sources differ")
        for source in walk(board, "datasource"):
            expect((source["type"], source["uid"]) in sources, file.name, f"no data source {source}")
        for link in walk(board, "url"):
            if link.startswith("/d/"):
                target = link.removeprefix("/d/").split("?")[0]
                expect(target in {f.stem for f in DASHBOARDS}, file.name, f"no dashboard {target}")
    expect(len(uids) >= 7, "dashboards", f"only {len(uids)}")
    for source in provisioned["datasources"]:
        for uid in walk(source.get("jsonData", {}), "datasourceUid"):
            expect(uid in {uid for _, uid in sources}, source["name"], f"no data source {uid}")


def walk(node, key):
    """All values of a key, wherever it is."""
    if isinstance(node, dict):
        for k, value in node.items():
            if k == key:
                yield value
            else:
                yield from walk(value, key)
    elif isinstance(node, list):
        for child in node:
            yield from walk(child, key)


expressions()
dashboards()
for defect in defects:
    print(defect)
sys.exit(1 if defects else 0)
