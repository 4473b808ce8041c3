"""Writes the dashboards of this directory: `python dashboards.py`, with the grafana-foundation-sdk of
`.ci/install`.

The types are those of the SDK, which Grafana generates from its own schema. `.ci/dashboards` holds that
what is committed is what this writes, and evaluates every query against a loaded daemon.
"""

import json
import pathlib
import re

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmaps
from grafana_foundation_sdk.models import prometheus as queries
from grafana_foundation_sdk.models import units

HERE = pathlib.Path(__file__).parent
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

# What a query of one or several nodes selects.
NODE = 'job=~"$job",instance=~"$instance"'
RATE = "[$__rate_interval]"
OUT = ',direction="out"'

# Units that the SDK has no name for.
PACKETS = "pps"
EACH_SECOND = "cps"


def query(number, expr, legend, shape):
    made = prometheus.Dataquery().expr(expr).ref_id(chr(ord("A") + number)).datasource(SOURCE)
    made = made.editor_mode(queries.QueryEditorMode.CODE)
    if shape == "heatmap":
        made = made.format(queries.PromQueryFormat.HEATMAP)
    elif shape == "table":
        made = made.format(queries.PromQueryFormat.TABLE)
    if legend:
        made = made.legend_format(legend)
    return made.instant() if shape in ("stat", "bars", "table") else made.range()


def limits(steps, base):
    """One colour, and from each value on another."""
    steps = [models.Threshold(value=None, color=base)] + [
        models.Threshold(value=float(value), color=color) for value, color in steps
    ]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def lines(stacked):
    legend = (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(kinds.LegendDisplayMode.LIST)
        .placement(kinds.LegendPlacement.BOTTOM)
        .calcs([])
    )
    tooltip = (
        common.VizTooltipOptions()
        .mode(kinds.TooltipDisplayMode.MULTI)
        .sort(kinds.SortOrder.DESCENDING)
    )
    made = timeseries.Panel().legend(legend).tooltip(tooltip)
    made = made.line_width(1).fill_opacity(30 if stacked else 8).span_nulls(False)
    made = made.show_points(kinds.VisibilityMode.NEVER)
    if stacked:
        made = made.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    return made


def reduced():
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")


def single():
    return (
        stat.Panel()
        .reduce_options(reduced())
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .color_mode(kinds.BigValueColorMode.VALUE)
        .text_mode(kinds.BigValueTextMode.AUTO)
    )


def bars():
    return (
        bargauge.Panel()
        .reduce_options(reduced())
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
    )


def cells():
    return table.Panel().show_header(True).with_transformation(
        models.DataTransformerConfig(id_val="merge", options={})
    )


def heat():
    colors = heatmap.HeatmapColorOptions().mode(heatmaps.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    return heatmap.Panel().calculate(False).color(colors)


SHAPES = {
    "lines": lambda: lines(stacked=False),
    "areas": lambda: lines(stacked=True),
    "stat": single,
    "bars": bars,
    "table": cells,
    "heatmap": heat,
}
ROOM = {"stat": (4, 4), "bars": (8, 8), "table": (24, 7), "heatmap": (8, 8)}


class Board:
    """A dashboard, panel by panel in the order in which they stand."""

    def __init__(self, name, title, description, variables, several):
        self.name, self.last, self.several = name, 0, several
        self.made = (
            dashboard.Dashboard(title)
            .uid(f"taciturn-{name}")
            .description(description)
            .tags(["taciturn", "turn"])
            .time("now-3h", "now")
            .refresh("30s")
            .timezone("browser")
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .link(
                dashboard.DashboardLink("taciturn")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags(["taciturn"])
                .as_dropdown(True)
                # Each has variables of its own: One allocation is of another job.
                .include_vars(False)
                .keep_time(True)
            )
        )
        source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        self.made.with_variable(source)
        for variable in variables:
            self.made.with_variable(variable)

    def row(self, title):
        self.last += 1
        self.made.with_row(dashboard.Row(title).id(self.last))
        return self

    def add(self, shape, title, unit, normal, *targets, steps=(), base="green", room=None, top=None, mappings=(), names=None, whole=False):
        """`normal` says what the panel shows when all is well; targets are pairs of query and legend."""
        self.last += 1
        width, height = room or ROOM.get(shape, (8, 8))
        made = SHAPES[shape]().id(self.last).title(title).description(normal).datasource(SOURCE)
        made = made.unit(unit).span(width).height(height)
        if shape != "heatmap":
            made = made.thresholds(limits(steps, base))
        if shape in ("lines", "areas", "bars"):
            made = made.min(0)
        if top is not None:
            made = made.max(top)
        if whole:
            # An increase is extrapolated to the borders of its range, and no whole number.
            made = made.decimals(0)
        if mappings:
            made = made.mappings(list(mappings))
        for number, (expr, legend) in enumerate(targets):
            made = made.with_target(query(number, selected(expr, self.several), legend, shape))
        if names:
            made = made.with_transformation(models.DataTransformerConfig(id_val="organize", options=names))
        self.made.with_panel(made)
        return self

    def text(self):
        return json.dumps(self.made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def variable(name, label, values, *, several):
    # All of them are those that there are: other programs have a job and an instance too.
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": values, "refId": "values"})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(several)
        .include_all(several)
    )


def selected(expr, several):
    """Grafana makes no regular expression of one value, and the brackets of an IPv6 address would be one."""
    return expr if several else re.sub(r'=~"\$(\w+)"', r'="$\1"', expr)


def nodes(several, of="taciturn_build_info"):
    # Where there are several, those too that are down.
    instances = "up" if several else of
    return [
        variable("job", "Job", f"label_values({of}, job)", several=several),
        variable(
            "instance", "Node",
            selected(f'label_values({instances}{{job=~"$job"}}, instance)', several), several=several,
        ),
    ]


def quantile(part, metric, by=(), selector=NODE):
    by = ", ".join(("le", *by))
    return f"histogram_quantile({part}, sum by ({by}) (rate({metric}_bucket{{{selector}}}{RATE})))"


def rate(metric, by="", more=""):
    by = f" by ({by})" if by else ""
    return f"sum{by} (rate({metric}{{{NODE}{more}}}{RATE}))"


def loss(by, metric="taciturn_media", selector=NODE):
    # Packets that come late can make more of them in a moment than were expected in it.
    came = f"sum by ({by}) (rate({metric}_packets_total{{{selector}}}{RATE}))"
    expected = f"sum by ({by}) (rate({metric}_expected_packets_total{{{selector}}}{RATE}))"
    return f"clamp_min(1 - {came} / ({expected} > 0), 0)"


def yes_or_no(no, yes):
    texts = {"0": (no, "green"), "1": (yes, "red")}
    options = {
        value: models.ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(texts.items())
    }
    return [models.ValueMap(options=options)]


def fleet():
    board = Board(
        "fleet",
        "taciturn / Fleet",
        "All nodes at once: are they up, what do they carry, and does any of them do badly.",
        nodes(several=True),
        several=True,
    )
    board.add(
        "stat", "Nodes down", units.Short,
        "Nodes that Prometheus does not reach. None.",
        (f"count(up{{{NODE}}} == 0) or vector(0)", "down"),
        steps=[(1, "red")],
    )
    board.add(
        "stat", "Allocations", units.Short,
        "Live allocations of all nodes; a call has two or more. Follows the calls of the day.",
        (f"sum(taciturn_allocations{{{NODE}}})", "allocations"),
    )
    board.add(
        "stat", "To clients", units.BitsPerSecondSI,
        "Payload sent to clients. Between two allocations of one node as much comes in.",
        (f'8 * {rate("taciturn_bytes_total", more=OUT)}', "to clients"),
    )
    board.add(
        "stat", "Dropped of what came", units.PercentUnit,
        "Datagrams dropped of all that arrived. Below 0.1 %; scanners alone make some.",
        (f'{rate("taciturn_drops_total")} / ({rate("taciturn_worker_datagrams_total")} > 0)', "dropped"),
        steps=[(0.005, "orange"), (0.02, "red")],
    )
    board.add(
        "stat", "Media lost", units.PercentUnit,
        "RTP packets that did not come through the relay, of those that were sent, last minutes. Below 1 %.",
        (f'clamp_min(1 - {rate("taciturn_media_packets_total")}'
         f' / ({rate("taciturn_media_expected_packets_total")} > 0), 0)', "lost"),
        steps=[(0.01, "orange"), (0.03, "red")],
    )
    board.add(
        "stat", "Alerts firing", units.Short,
        "Alerts of deploy/prometheus that fire now. None.",
        ('count(ALERTS{alertname=~"Taciturn.*",alertstate="firing"}) or vector(0)', "firing"),
        steps=[(1, "red")],
    )
    board.row("What is carried")
    board.add(
        "areas", "Allocations by node", units.Short,
        "Even over nodes of the same size, with the shape of the day. A node that falls to nothing alone has a fault.",
        (f"sum by (instance) (taciturn_allocations{{{NODE}}})", "{{instance}}"),
    )
    board.add(
        "areas", "Traffic to clients by node", units.BitsPerSecondSI,
        "Follows the allocations. Traffic that rises where allocations do not is one client's: see One allocation.",
        (f'8 * {rate("taciturn_bytes_total", "instance", OUT)}', "{{instance}}"),
    )
    board.add(
        "areas", "Packets to clients by path", PACKETS,
        "Nearly all hairpin where both parties are on one node; relay and indication are peers elsewhere, or ICE's first packets.",
        (rate("taciturn_packets_total", "path", OUT), "{{path}}"),
    )
    board.add(
        "lines", "Allocations made", EACH_SECOND,
        "New allocations a second by transport. UDP far ahead; more TCP and TLS than usual means that UDP is blocked somewhere.",
        (rate("taciturn_allocations_total", "transport"), "{{transport}}"),
    )
    board.add(
        "lines", "Time to set up an allocation", units.Seconds,
        "From the arrival of an authenticated Allocate to its answer. Below 1 ms for half, below 10 ms for 99 of 100.",
        (quantile(0.5, "taciturn_allocation_setup_seconds"), "half"),
        (quantile(0.99, "taciturn_allocation_setup_seconds"), "99 of 100"),
    )
    board.add(
        "lines", "Requests answered with an error", EACH_SECOND,
        "By code. 401 and 438 are part of every client's start; 486 and 508 are limits or a full pool, 403 a refused peer.",
        (rate("taciturn_requests_total", "code", ',code!="0"'), "{{code}}"),
    )
    board.row("How well")
    board.add(
        "lines", "Media lost by node", units.PercentUnit,
        "What senders' networks lost before the relay, and what it dropped. Below 1 %; on all nodes at once it is a network, on one it is the node.",
        (loss("instance, direction"), "{{instance}} {{direction}}"),
    )
    board.add(
        "lines", "Jitter of streams", units.Seconds,
        "RFC 3550's jitter of RTP streams as they pass, once for every five seconds of each. Below 30 ms for 95 of 100.",
        (quantile(0.5, "taciturn_media_jitter_seconds"), "half"),
        (quantile(0.95, "taciturn_media_jitter_seconds"), "95 of 100"),
    )
    board.add(
        "areas", "Drops by reason", PACKETS,
        "no_allocation and no_channel after calls end, no_cookie from scanners. Whatever was not there yesterday deserves a look.",
        (f'{rate("taciturn_drops_total", "reason")} > 0', "{{reason}}"),
    )
    board.add(
        "lines", "Busiest worker of each node", units.PercentUnit,
        "Part of the time for which it did not wait. Below 70 %; from 90 % on packets wait for it.",
        (f"max by (instance) (rate(taciturn_worker_busy_seconds_total{{{NODE}}}{RATE}))", "{{instance}}"),
        steps=[(0.7, "orange"), (0.9, "red")], top=1,
    )
    board.add(
        "lines", "Free relay ports", units.PercentUnit,
        "Of each node's fullest relay address. Above 30 %; near nothing, new allocations get 508.",
        (f'min by (instance) (sum by (instance, relay, family) (taciturn_ports{{{NODE},state="free"}})'
         f" / sum by (instance, relay, family) (taciturn_ports{{{NODE}}}))", "{{instance}}"),
        top=1,
    )
    board.add(
        "lines", "Receive queue drops", PACKETS,
        "Datagrams that the kernel dropped since no worker took them. Nothing.",
        (rate("taciturn_receive_queue_drops_total", "instance, socket"), "{{instance}} {{socket}}"),
    )
    board.row("Nodes")
    board.add(
        "table", "Nodes", units.Short,
        "Each node's build, allocations, packets a second and busiest worker. One version, but while it is rolled out.",
        (f"sum by (instance, version) (taciturn_build_info{{{NODE}}})", ""),
        (f"sum by (instance) (taciturn_allocations{{{NODE}}})", ""),
        (f'sum by (instance) (rate(taciturn_packets_total{{{NODE},direction="out"}}{RATE}))', ""),
        (f"max by (instance) (rate(taciturn_worker_busy_seconds_total{{{NODE}}}{RATE}))", ""),
        names={
            "excludeByName": {"Time": True, "Value #A": True},
            "indexByName": {},
            "renameByName": {
                "instance": "Node", "version": "Version", "Value #B": "Allocations",
                "Value #C": "Packets a second", "Value #D": "Busiest worker, of 1",
            },
        },
    )
    return board


def node():
    board = Board(
        "node",
        "taciturn / Node",
        "One node: its workers, its sockets, its ports, and the process.",
        nodes(several=False),
        several=False,
    )
    board.add(
        "stat", "Up for", units.Seconds,
        "Time since the daemon began to serve. Longer than since the last deployment.",
        (f"time() - process_start_time_seconds{{{NODE}}}", "up"),
    )
    board.add(
        "stat", "Allocations", units.Short,
        "Live allocations of this node.",
        (f"sum(taciturn_allocations{{{NODE}}})", "allocations"),
    )
    board.add(
        "stat", "Connections", units.Short,
        "Open connections of clients on TCP, TLS and DTLS. No more than the allocations over these, and some that begin.",
        (f"sum(taciturn_connections{{{NODE}}})", "connections"),
    )
    board.add(
        "stat", "First certificate expires in", units.Seconds,
        "Of all listeners. More than 14 days: who renews at 30 days has failed twice by then.",
        (f"min(taciturn_certificate_expiry_timestamp_seconds{{{NODE}}} - time())", "left"),
        steps=[(2 * 86_400, "orange"), (14 * 86_400, "green")], base="red",
    )
    board.add(
        "stat", "Memory", units.BytesIEC,
        "Resident memory. Some 20 MiB, and a few kB for each allocation; it does not grow from day to day.",
        (f"process_resident_memory_bytes{{{NODE}}}", "resident"),
    )
    board.add(
        "stat", "Open files", units.PercentUnit,
        "Of those that it may open. Below 50 %; each connection and each relay socket is one.",
        (f"process_open_fds{{{NODE}}} / process_max_fds{{{NODE}}}", "open"),
        steps=[(0.5, "orange"), (0.8, "red")],
    )
    board.row("Workers")
    board.add(
        "lines", "Busy", units.PercentUnit,
        "Part of the time for which each worker did not wait. All alike, below 70 %; UDP workers come first in the numbering.",
        (f"rate(taciturn_worker_busy_seconds_total{{{NODE}}}{RATE})", "worker {{worker}}"), top=1,
    )
    board.add(
        "lines", "Imbalance", units.Short,
        "Busy time of the busiest UDP worker over the mean. 1 is even; above 1.5 matters where the busiest one is near its limit.",
        (f"taciturn_worker_imbalance_ratio{{{NODE}}}", "imbalance"),
    )
    board.add(
        "lines", "Datagrams taken", PACKETS,
        "From each worker's sockets and connections. Alike over UDP workers.",
        (f"rate(taciturn_worker_datagrams_total{{{NODE}}}{RATE})", "worker {{worker}}"),
    )
    board.add(
        "lines", "Length of a turn", units.Seconds,
        "What a packet may wait for its turn, 99 of 100. Below 1 ms.",
        (quantile(0.99, "taciturn_worker_turn_seconds", ["worker"]), "worker {{worker}}"),
    )
    board.add(
        "lines", "Batch size", units.Short,
        "Messages handled at once, 95 of 100. Small while there is air; at 32 batches are full and the worker is behind.",
        (quantile(0.95, "taciturn_worker_batch_size", ["worker"]), "worker {{worker}}"), top=32,
    )
    board.add(
        "lines", "Allocations by worker", units.Short,
        "Even, but for what one client's or one load balancer's address brings to a worker.",
        (f"taciturn_worker_allocations{{{NODE}}}", "worker {{worker}}"),
    )
    board.row("Sockets and the kernel")
    board.add(
        "lines", "Receive queue drops", PACKETS,
        "Datagrams that found the kernel's queue full. Nothing; else a worker is behind or the buffer small.",
        (rate("taciturn_receive_queue_drops_total", "socket, worker"), "{{socket}} worker {{worker}}"),
    )
    board.add(
        "lines", "Datagrams for each system call", units.Short,
        "How many one call receives (in) or sends (out). Rises with load, which is what keeps a busy node cheap.",
        (f'{rate("taciturn_udp_datagrams_total", "direction")} / ({rate("taciturn_udp_calls_total", "direction")} > 0)',
         "{{direction}}"),
    )
    board.add(
        "lines", "Joined with others", units.PercentUnit,
        "Datagrams that came (gro) or left (gso) in one piece with others of their flow. More with video; none where the kernel or the card cannot.",
        (f'sum by (direction, offload) (rate(taciturn_udp_datagrams_total{{{NODE},offload!="none"}}{RATE}))'
         f' / on (direction) group_left () ({rate("taciturn_udp_datagrams_total", "direction")} > 0)', "{{offload}}"),
    )
    board.add(
        "lines", "Receive buffer granted", units.BytesIEC,
        "The least of the listeners. listen.receive_buffer (8 MiB); less means that net.core.rmem_max is low.",
        (f"taciturn_receive_buffer_bytes{{{NODE}}}", "granted"),
    )
    board.add(
        "lines", "Handed to another worker", PACKETS,
        "Datagrams that came to a worker that does not own their 5-tuple. Near nothing; more while clients move.",
        (rate("taciturn_misdirected_total"), "handed over"),
    )
    board.add(
        "areas", "Drops by reason", PACKETS,
        "no_allocation and no_channel after calls end, no_cookie from scanners; docs/observability.md has what others mean.",
        (f'{rate("taciturn_drops_total", "reason")} > 0', "{{reason}}"),
    )
    board.row("Allocations and requests")
    board.add(
        "areas", "Allocations by transport", units.Short,
        "How clients come. UDP far ahead.",
        (f"sum by (transport) (taciturn_allocations{{{NODE}}})", "{{transport}}"),
    )
    board.add(
        "lines", "Ends by reason", EACH_SECOND,
        "closed by clients, and expired where they vanished. revoked and banned are yours; stopped is a restart.",
        (rate("taciturn_allocations_ended_total", "reason"), "{{reason}}"),
    )
    board.add(
        "heatmap", "Lifetimes of allocations that ended", units.Seconds,
        "As long as calls last. Many of a few seconds are calls that did not come about.",
        (f"sum by (le) (increase(taciturn_allocation_lifetime_seconds_bucket{{{NODE}}}{RATE}))", "{{le}}"),
    )
    board.add(
        "areas", "Requests by method", EACH_SECOND,
        "One Refresh, CreatePermission or ChannelBind each few minutes for each allocation.",
        (rate("taciturn_requests_total", "method"), "{{method}}"),
    )
    board.add(
        "areas", "Relay ports by state", units.Short,
        "held is what allocations have; resting ports are kept back after use. free far above nothing.",
        (f"sum by (state) (taciturn_ports{{{NODE}}})", "{{state}}"),
    )
    board.add(
        "lines", "Packet size", units.BytesSI,
        "Payload, half and 95 of 100. Near 200 B is audio, near 1,200 B video.",
        (quantile(0.5, "taciturn_packet_size_bytes", ["direction"]), "half, {{direction}}"),
        (quantile(0.95, "taciturn_packet_size_bytes", ["direction"]), "95 of 100, {{direction}}"),
    )
    board.row("Process")
    board.add(
        "lines", "CPU", units.Short,
        "Cores in use. Below the number of UDP workers; most of it is the kernel's sending.",
        (f"rate(process_cpu_seconds_total{{{NODE}}}{RATE})", "cores"),
    )
    board.add(
        "lines", "Memory and limit", units.BytesIEC,
        "Resident memory, and the limit that recording-rules.yml was told. Flat with the allocations.",
        (f"process_resident_memory_bytes{{{NODE}}}", "resident"),
        ("taciturn:memory_limit:bytes", "limit"),
    )
    board.add(
        "lines", "Reloads and events", EACH_SECOND,
        "Configurations read again and events delivered or lost. No refused reload, no dropped event.",
        (rate("taciturn_reloads_total", "outcome"), "reload {{outcome}}"),
        (rate("taciturn_events_total", "outlet, outcome"), "{{outlet}} {{outcome}}"),
    )
    return board


def allocation():
    mine = NODE + ',allocation="$allocation"'
    board = Board(
        "allocation",
        "taciturn / One allocation",
        "One of the busiest allocations by the id that log, events and API have too. Scraped from /metrics/allocations.",
        nodes(several=False, of="taciturn_allocation_series")
        + [
            variable(
                "allocation", "Allocation",
                selected(f"label_values(taciturn_allocation_age_seconds{{{NODE}}}, allocation)", several=False),
                several=False,
            )
        ],
        several=False,
    )
    board.add(
        "stat", "Age", units.Seconds,
        "Time since the allocation was made. Nothing once it has ended.",
        (f"max(taciturn_allocation_age_seconds{{{mine}}})", "age"),
    )
    board.add(
        "stat", "From the client", units.BitsPerSecondSI,
        "Payload that its client sends. 40 to 100 kbit/s for audio, 0.5 to 3 Mbit/s for video.",
        (f'8 * sum(rate(taciturn_allocation_bytes_total{{{mine},direction="in"}}{RATE}))', "in"),
    )
    board.add(
        "stat", "To the client", units.BitsPerSecondSI,
        "Payload that its client gets. Of the size of what the other party sends.",
        (f'8 * sum(rate(taciturn_allocation_bytes_total{{{mine},direction="out"}}{RATE}))', "out"),
    )
    board.add(
        "stat", "Dropped", units.PercentUnit,
        "Packets dropped here of those that came from it and for it. Nothing, but for the first moments of a call.",
        (f"sum(rate(taciturn_allocation_drops_total{{{mine}}}{RATE}))"
         f" / (sum(rate(taciturn_allocation_packets_total{{{mine}}}{RATE}))"
         f" + sum(rate(taciturn_allocation_drops_total{{{mine}}}{RATE})) > 0)", "dropped"),
        steps=[(0.005, "orange"), (0.02, "red")],
    )
    board.add(
        "stat", "Of the node's traffic", units.PercentUnit,
        "Its part of all bytes of the node. Small, unless the node is nearly empty.",
        (f"sum(rate(taciturn_allocation_bytes_total{{{mine}}}{RATE}))"
         f" / (sum(rate(taciturn_allocation_bytes_total{{{NODE}}}{RATE})) > 0)", "of all"),
    )
    board.add(
        "stat", "With a row of their own", units.Short,
        "Allocations of the node that can be chosen above; the rest is in the row `other`. All, up to metrics.allocations.",
        (f'sum(taciturn_allocation_series{{{NODE},series="own"}})', "own"),
    )
    board.row("Traffic")
    board.add(
        "lines", "Packets", PACKETS,
        "From its client (in) and to it (out). 50 a second each way for audio. One way only: the other party is silent, or its packets are dropped.",
        (f"sum by (direction) (rate(taciturn_allocation_packets_total{{{mine}}}{RATE}))", "{{direction}}"),
    )
    board.add(
        "lines", "Payload", units.BitsPerSecondSI,
        "Without TURN framing. Video falls when a party's bandwidth estimate does.",
        (f"8 * sum by (direction) (rate(taciturn_allocation_bytes_total{{{mine}}}{RATE}))", "{{direction}}"),
    )
    board.add(
        "lines", "Mean packet", units.BytesSI,
        "Payload of a packet. Near 200 B is audio alone, near 1,000 B video.",
        (f"sum by (direction) (rate(taciturn_allocation_bytes_total{{{mine}}}{RATE}))"
         f" / (sum by (direction) (rate(taciturn_allocation_packets_total{{{mine}}}{RATE})) > 0)", "{{direction}}"),
    )
    board.row("How well")
    media = "taciturn_allocation_media"
    board.add(
        "lines", "Media lost", units.PercentUnit,
        "RTP packets of its streams that did not pass, beside all streams of the node. in is of what its client sends, out of what is sent to it; loss behind the relay is in neither. Below 1 %.",
        (loss("direction", media, mine), "{{direction}}"),
        (loss("direction", selector='instance=~"$instance"'), "node, {{direction}}"),
    )
    board.add(
        "lines", "Jitter", units.Seconds,
        "The greatest of its streams (RFC 3550), looked at every five seconds, beside 95 of 100 on the node. Below 30 ms.",
        (f"max by (direction) ({media}_jitter_seconds{{{mine}}})", "{{direction}}"),
        (quantile(0.95, "taciturn_media_jitter_seconds", ["direction"], 'instance=~"$instance"'), "node, {{direction}}"),
    )
    board.add(
        "lines", "Time standing still", units.PercentUnit,
        "Gaps of 200 ms or more although the sender was not silent, as part of the time, those of all its streams added up: a break of audio and video counts twice. Nothing.",
        (f"sum by (direction) (rate({media}_gap_seconds_total{{{mine}}}{RATE}))", "{{direction}}"),
    )
    board.add(
        "lines", "Gaps", EACH_SECOND,
        "How often that happened. Nothing; one every few seconds is a link that breaks off, as WiFi's roaming does.",
        (f"sum by (direction) (rate({media}_gaps_total{{{mine}}}{RATE}))", "{{direction}}"),
    )
    board.add(
        "lines", "Reordered", units.PercentUnit,
        "RTP packets that came after a later one. Near nothing; more is a network with several ways.",
        (f"sum by (direction) (rate({media}_reordered_packets_total{{{mine}}}{RATE}))"
         f" / (sum by (direction) (rate({media}_packets_total{{{mine}}}{RATE})) > 0)", "{{direction}}"),
    )
    board.add(
        "lines", "Drops", PACKETS,
        "Packets from its client (in) and for it (out) that were dropped here. Nothing once the call is up.",
        (f"sum by (direction) (rate(taciturn_allocation_drops_total{{{mine}}}{RATE}))", "{{direction}}"),
    )
    board.row("Beside the others")
    board.add(
        "bars", "Busiest allocations", units.BitsPerSecondSI,
        "The ten with most payload, both ways. Of a size with each other; one far ahead is not a call.",
        (f"topk(10, 8 * sum by (allocation) (rate(taciturn_allocation_bytes_total{{{NODE},allocation!=\"other\"}}{RATE})))",
         "{{allocation}}"),
        room=(12, 9),
    )
    board.add(
        "table", "Who it is", units.Short,
        "What the credential claimed, as pseudonyms: call stands for the call in this party's events alone.",
        (f"max by (allocation, call, tenant, transport) (taciturn_allocation_age_seconds{{{mine}}})", ""),
        room=(12, 9),
        names={
            "excludeByName": {"Time": True},
            "indexByName": {},
            "renameByName": {
                "allocation": "Allocation", "call": "Call", "tenant": "Tenant",
                "transport": "Transport", "Value": "Age, s",
            },
        },
    )
    return board


def privacy():
    board = Board(
        "privacy",
        "taciturn / Privacy and abuse",
        "Is what must stay hidden hidden, and who tries what: failed credentials, refused peers, limits, bans.",
        nodes(several=True),
        several=True,
    )
    board.add(
        "stat", "Clients' addresses in the log", units.Short,
        "Hidden. Shown while somebody has log.show_addresses on, which is for hours and not for good.",
        (f"max(taciturn_addresses_shown{{{NODE}}})", "log"),
        mappings=yes_or_no("hidden", "shown"), steps=[(1, "red")],
    )
    board.add(
        "stat", "Bans in force", units.Short,
        "Users, addresses and networks that may allocate nothing.",
        (f"sum(taciturn_bans{{{NODE}}})", "bans"),
    )
    board.add(
        "stat", "Revocations remembered", units.Short,
        "Credentials, users and calls taken back whose credentials might still be good otherwise.",
        (f"sum(taciturn_revocations{{{NODE}}})", "revocations"),
    )
    board.add(
        "stat", "Ended by you", units.Short,
        "Allocations that a revocation or a ban ended, in the time shown.",
        (f'sum(increase(taciturn_allocations_ended_total{{{NODE},reason=~"revoked|banned"}}[$__range]))', "ended"),
        whole=True,
    )
    board.add(
        "stat", "Ports used before their rest", units.Short,
        "In the time shown. None: a port that is used again early may hear what was meant for its former holder.",
        (f"sum(increase(taciturn_ports_taken_early_total{{{NODE}}}[$__range]))", "early"),
        steps=[(1, "orange")], whole=True,
    )
    board.add(
        "stat", "Log and events lost", units.Short,
        "Events that an outlet lost, and clients' moves (RFC 8016) left out of the log, in the time shown. None.",
        (f"sum(increase(taciturn_journal_lost_total{{{NODE}}}[$__range]))"
         f' + sum(increase(taciturn_events_total{{{NODE},outcome="dropped"}}[$__range]))', "lost"),
        steps=[(1, "red")], whole=True,
    )
    board.row("Credentials")
    board.add(
        "areas", "Failed authentications", EACH_SECOND,
        "Without `missing`, with which each client begins. stale_nonce on long calls, expired where apps keep credentials; wrong is guessing, or a secret that differs.",
        (rate("taciturn_auth_failures_total", "reason", ',reason!="missing"'), "{{reason}}"),
    )
    board.add(
        "lines", "First requests and allocations", EACH_SECOND,
        "Requests without a credential, and allocations made. Alike; far more of the first is somebody who knocks.",
        (rate("taciturn_auth_failures_total", more=',reason="missing"'), "without a credential"),
        (rate("taciturn_allocations_total"), "allocations made"),
    )
    board.add(
        "areas", "Left unanswered", PACKETS,
        "Requests beyond limits.unvalidated and limits.prefix_failures. None; more is a flood, or an office whose credentials ran out.",
        (rate("taciturn_drops_total", "reason", ',reason=~"unvalidated|prefix_failures"'), "{{reason}}"),
    )
    board.add(
        "areas", "Ends by reason", EACH_SECOND,
        "revoked, banned and replaced of all ends. Few; a burst follows what you or your backend took back.",
        (rate("taciturn_allocations_ended_total", "reason", ',reason=~"revoked|banned|replaced"'), "{{reason}}"),
    )
    board.add(
        "lines", "Bans and revocations", units.Short,
        "In force on all nodes. Each node knows its own: nodes that differ were not all asked.",
        (f"sum by (instance) (taciturn_bans{{{NODE}}})", "bans {{instance}}"),
        (f"sum by (instance) (taciturn_revocations{{{NODE}}})", "revocations {{instance}}"),
    )
    board.add(
        "lines", "Connections refused", EACH_SECOND,
        "Connections closed without an allocation, on a deadline or for want of room. Few; many are scanners or a flood.",
        (rate("taciturn_connections_refused_total", "transport"), "{{transport}}"),
    )
    board.row("Peers")
    board.add(
        "areas", "Packets to or from whom the policy closes", PACKETS,
        "policy, other_call and family. None from honest apps; a client that tries addresses in turn looks for your network.",
        (rate("taciturn_drops_total", "reason", ',reason=~"policy|other_call|family"'), "{{reason}}"),
    )
    board.add(
        "areas", "Strangers turned away", PACKETS,
        "Packets that no permission admits: no_permission, not_permitted, not_named, no_landing, by_kernel. Some while ICE tries pairs, and after calls end.",
        (rate("taciturn_drops_total", "reason",
              ',reason=~"no_permission|not_permitted|not_named|no_landing|by_kernel"'), "{{reason}}"),
    )
    board.add(
        "lines", "Requests refused", EACH_SECOND,
        "403 is a peer that the policy closes, 486 a limit, 508 no port or a full journal, 441 and 437 are mistakes. None in quiet times.",
        (rate("taciturn_requests_total", "code", ',code=~"403|437|441|486|508"'), "{{code}}"),
    )
    board.add(
        "bars", "Drops by who sends", PACKETS,
        "Packets dropped a second of the ten allocations whose clients had most dropped. Few each; one far ahead is who tries. Needs the job taciturn-allocations.",
        ("topk(10, sum by (instance, allocation) (rate(taciturn_allocation_drops_total"
         f'{{instance=~"$instance",direction="in",allocation!="other"}}{RATE})))', "{{allocation}}"),
        room=(24, 8),
    )
    board.row("Limits and noise")
    board.add(
        "areas", "Limits reached", EACH_SECOND,
        "By their names in [limits]. None, unless a limit is meant to be reached.",
        (f'{rate("taciturn_limited_total", "limit")} > 0', "{{limit}}"),
    )
    board.add(
        "areas", "Noise", PACKETS,
        "What is no TURN: malformed, no_cookie, fingerprint, unexpected, bad_source. A little, from scanners of the whole Internet.",
        (rate("taciturn_drops_total", "reason",
              ',reason=~"malformed|no_cookie|fingerprint|unexpected|unknown_method|bad_source|binding_off"'), "{{reason}}"),
    )
    board.add(
        "areas", "Ports that rest", units.Short,
        "Kept back after use, so that nobody hears what was meant for another. Follows the ends of allocations.",
        (f'sum by (instance) (taciturn_ports{{{NODE},state="resting"}})', "{{instance}}"),
    )
    return board


BOARDS = (fleet, node, allocation, privacy)


if __name__ == "__main__":
    for made in BOARDS:
        board = made()
        (HERE / f"{board.name}.json").write_text(board.text(), encoding="utf-8")
