"""Holds dashboards against Grafana's schema, by the types that the SDK generates from it.

A dashboard is read into these types, the options of each panel and each query included, and written
again: what the schema does not know does not come back. The values of what was read are then compared
with the types' annotations.
"""

import enum
import json
import types
import typing

import typeguard
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import (
    bargauge,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)

PANELS = {"timeseries": timeseries, "stat": stat, "table": table, "bargauge": bargauge, "heatmap": heatmap}


def hints(kind):
    return typing.get_type_hints(kind)


def choices(hint):
    """The alternatives of a Union, or the one that there is."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [choice for one in typing.get_args(hint) for choice in choices(one)]
    return [hint]


def faults(value, hint, where):
    """What of `value` is not as `hint` says."""
    options = choices(hint)
    if value is None:
        return [] if type(None) in options or hint is object else [f"{where} is missing"]
    enums = [one for one in options if isinstance(one, type) and issubclass(one, enum.Enum)]
    if enums:
        if any(value in [member.value for member in one] for one in enums):
            return []
    elif isinstance(value, list):
        inner = [typing.get_args(one)[0] for one in options if typing.get_origin(one) is list]
        if inner:
            return [fault for at, one in enumerate(value) for fault in faults(one, inner[0], f"{where}[{at}]")]
    elif hasattr(type(value), "from_json"):
        # A query, an option: what stands in the schema as anything has been read into its own type.
        return members(value, where)
    # A whole number is a float too; a bool is no number.
    if isinstance(value, int) and not isinstance(value, bool) and float in options:
        return []
    try:
        typeguard.check_type(value, hint)
    except typeguard.TypeCheckError as error:
        return [f"{where}: {error}"]
    return []


def members(value, where):
    found = []
    for name, hint in hints(type(value)).items():
        found += faults(getattr(value, name), hint, f"{where}.{name}")
    return found


def lost(before, after, where="dashboard"):
    """What is in `before` and not in `after`."""
    if isinstance(before, dict):
        if not isinstance(after, dict):
            return [where]
        return [
            one
            for name, value in before.items()
            for one in ([f"{where}.{name}"] if name not in after else lost(value, after[name], f"{where}.{name}"))
        ]
    if isinstance(before, list):
        if not isinstance(after, list) or len(before) != len(after):
            return [where]
        return [one for at, value in enumerate(before) for one in lost(value, after[at], f"{where}[{at}]")]
    return [] if before == after else [where]


def problems(text):
    plugins.register_default_plugins()
    document = json.loads(text)
    read = dashboard.Dashboard.from_json(document)
    found = [f"{one} is not of the schema" for one in lost(document, json.loads(json.dumps(read, cls=JSONEncoder)))]
    for panel in read.panels:
        if isinstance(panel, dashboard.RowPanel):
            continue
        if panel.type_val not in PANELS:
            found.append(f"no schema for a panel of type {panel.type_val}")
            continue
        if type(panel.options) is not PANELS[panel.type_val].Options:
            found.append(f"{panel.title}: its options were not read as those of its type")
        if any(type(target) is not prometheus.Dataquery for target in panel.targets):
            found.append(f"{panel.title}: a query was not read as one of Prometheus")
        # The one type that the SDK does not read by itself.
        panel.transformations = [
            dashboard.DataTransformerConfig.from_json(one) for one in panel.transformations
        ]
    return found + members(read, "dashboard")
