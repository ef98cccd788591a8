"""Every PromQL expression under deploy/: those of panels, of variables, and of rules."""

import json
import pathlib
import re
from dataclasses import dataclass

import promql_parser
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
RULES = [ROOT / "deploy/prometheus/recording.yml", ROOT / "deploy/prometheus/alerts.yml"]
# What Grafana puts in itself, here for minutes of scraping every second.
GRAFANA = {"__rate_interval": "1m", "__interval": "15s", "__range": "5m"}
LABEL_VALUES = re.compile(r"label_values\((.*), *(\w+)\)")
COMPARISONS = ("==", "!=", ">", "<", ">=", "<=")


@dataclass
class Query:
    where: str
    expr: str
    # Labels that the legend names.
    legend: tuple = ()
    exemplar: bool = False
    alert: bool = False


def panels(board):
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def of_dashboards():
    for file in DASHBOARDS:
        board = json.loads(file.read_text())
        for variable in board["templating"]["list"]:
            found = LABEL_VALUES.fullmatch(variable["query"]["query"])
            expr = f"count by ({found[2]}) ({found[1]})" if found else variable["query"]["query"]
            yield Query(f"{file.name}: ${variable['name']}", expr)
        for panel in panels(board):
            for target in panel.get("targets", []):
                legend = tuple(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
                where = f"{file.name}: {panel['title']} {target['refId']}"
                yield Query(where, target["expr"], legend, target.get("exemplar", False))


def of_rules():
    for file in RULES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                name = rule.get("record") or rule["alert"]
                yield Query(f"{file.name}: {name}", rule["expr"], alert="alert" in rule)


def recorded():
    """Names that rules make."""
    groups = (group for file in RULES for group in yaml.safe_load(file.read_text())["groups"])
    return {rule["record"]: rule["expr"] for group in groups for rule in group["rules"] if "record" in rule}


def every():
    return [*of_dashboards(), *of_rules()]


def filled(expr, variables):
    """Variables replaced as Grafana does it."""
    values = {**GRAFANA, **variables}
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expr)


def parsed(expr):
    return promql_parser.parse(filled(expr, {"host": ".*", "service": "s", "type": ".*", "gpu": ".*"}))


def below(node):
    """A node and all below it."""
    yield node
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        child = getattr(node, name, None)
        if child is not None and not isinstance(child, str):
            yield from below(child)
    for child in getattr(node, "args", None) or []:
        yield from below(child)


def measured(node):
    """What an alert looks at, as expressions of their own: without thresholds, and without the past."""
    if isinstance(node, promql_parser.ParenExpr):
        yield from measured(node.expr)
    elif isinstance(node, promql_parser.BinaryExpr) and str(node.op) in COMPARISONS:
        yield from measured(node.lhs)
    elif isinstance(node, promql_parser.BinaryExpr) and str(node.op) == "and":
        yield from measured(node.lhs)
        yield from measured(node.rhs)
    elif isinstance(node, promql_parser.BinaryExpr) and str(node.op) == "unless":
        yield from measured(node.lhs)
    elif isinstance(node, promql_parser.Call) and node.func.name == "absent":
        yield from measured(node.args[0])
    else:
        yield re.sub(r" offset \w+", "", node.prettify())
