"""Draws a dashboard from the answers to its queries, laid out on its own grid."""

import io
import math
import re

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, MultipleLocator
from PIL import Image

COLUMN, LINE = 0.72, 0.36  # inches of a column and of a line of the grid
PAPER, CARD, TEXT, DIM, GRID = "#f4f5f5", "#ffffff", "#24292e", "#6c757d", "#e3e5e8"
COLORS = ["#56a64b", "#3274d9", "#ff780a", "#e02f44", "#a352cc", "#e0b400", "#37a2c7", "#8f3bb8", "#6e4b2a", "#5a6b7b"]
NAMED = {"green": "#56a64b", "orange": "#ff780a", "red": "#e02f44"}


def scaled(value, step, names):
    at = 0
    while abs(value) >= step and at < len(names) - 1:
        value, at = value / step, at + 1
    return value, names[at]


def short(value):
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if abs(value) < 100 else 0
    text = f"{value:.{min(digits, 4)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(value):
    if abs(value) >= 60:
        for name, seconds in (("d", 86_400), ("h", 3_600), ("min", 60)):
            if abs(value) >= seconds:
                return f"{value / seconds:.3g} {name}"
    number, name = (value * 1e6, "µs") if abs(value) < 1e-3 else (value * 1e3, "ms")
    return f"{short(value)} s" if abs(value) >= 1 or value == 0 else f"{short(number)} {name}"


def shown(value, unit):
    if unit == "percentunit":
        return f"{short(value * 100)} %"
    if unit == "s":
        return duration(value)
    if unit == "bytes":
        number, name = scaled(value, 1024, ["B", "KiB", "MiB", "GiB"])
        return f"{short(number)} {name}"
    number, name = scaled(value, 1000, ["", "k", "M", "G"])
    after = {"bps": "bit/s", "pps": "p/s", "cps": "/s", "decbytes": "B", "short": ""}[unit]
    return f"{short(number)} {name}{after}".strip()


def named(target, metric):
    legend = target.get("legendFormat") or "{{instance}}"
    return re.sub(r"\{\{(\w+)\}\}", lambda found: metric.get(found.group(1), ""), legend).strip()


def color(panel, value):
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return NAMED[reached[-1]]


def series(panel, ask):
    found = []
    for target in panel["targets"]:
        for one in ask(target):
            points = [(float(at), float(value)) for at, value in one["values"]]
            if any(not math.isnan(value) for _, value in points):
                found.append((named(target, one["metric"]), points))
    return sorted(found)


def lines(axes, panel, ask, unit):
    found = series(panel, ask)
    start = min(points[0][0] for _, points in found)
    stacked = panel["fieldConfig"]["defaults"]["custom"].get("stacking", {}).get("mode") == "normal"
    below = {}
    for number, (name, points) in enumerate(found):
        hue = COLORS[number % len(COLORS)]
        times = [at - start for at, _ in points]
        if stacked:
            bottom = [below.get(at, 0) for at, _ in points]
            top = [low + value for low, (_, value) in zip(bottom, points)]
            below.update({at: high for (at, _), high in zip(points, top)})
            axes.fill_between(times, bottom, top, color=hue, alpha=0.35, linewidth=0)
            axes.plot(times, top, color=hue, linewidth=0.9, label=name)
        else:
            axes.plot(times, [value for _, value in points], color=hue, linewidth=1.1, label=name)
    highest = axes.get_ylim()[1]
    axes.set_ylim(0, max(highest, 1e-9) if highest > 0.06 or unit != "percentunit" else max(highest, 0.001))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{int(value) // 60}:{int(value) % 60:02}"))
    axes.locator_params(axis="y", nbins=5)
    axes.xaxis.set_major_locator(MultipleLocator(30))
    if unit == "bytes":
        axes.yaxis.set_major_locator(MultipleLocator(2.0 ** math.ceil(math.log2(axes.get_ylim()[1] / 5))))
    dress(axes)
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(-0.02, -0.12), ncols=4 if len(found) > 3 else 3, fontsize=6.2, frameon=False,
        handlelength=1, columnspacing=0.9, labelcolor=DIM,
    )  # fmt: skip
    legend.set_in_layout(False)


def dress(axes):
    axes.tick_params(labelsize=6.2, colors=DIM, length=0)
    axes.grid(color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def heat(axes, panel, ask, unit):
    (target,) = panel["targets"]
    rows = sorted((float(one["metric"]["le"]), dict(one["values"])) for one in ask(target))
    times = sorted({at for _, values in rows for at in values})
    counts, before = [], {at: 0.0 for at in times}
    for _, values in rows:
        now = {at: float(values.get(at, 0)) for at in times}
        counts.append([max(0.0, now[at] - before[at]) for at in times])
        before = now
    axes.pcolormesh(counts, cmap="Oranges")
    bounds = [bound for bound, _ in rows]
    places = range(0, len(bounds), max(1, len(bounds) // 6))
    names = ["more" if math.isinf(bounds[at]) else shown(bounds[at], unit) for at in places]
    axes.set_yticks([at + 0.5 for at in places], names)
    width = len(times)
    axes.set_xticks([0, width / 2, width - 1])
    axes.set_xticklabels([f"{(times[int(at)] - times[0]) / 60:.1f} min" for at in (0, width // 2, width - 1)])
    dress(axes)
    axes.grid(False)


def single(axes, panel, ask, unit):
    (target,) = panel["targets"]
    (one,) = ask(target)
    value = float(one["value"][1])
    whole = panel["fieldConfig"]["defaults"].get("decimals") == 0
    text = shown(round(value) if whole else value, unit)
    for mapping in panel["fieldConfig"]["defaults"].get("mappings", []):
        text = mapping["options"].get(f"{value:g}", {}).get("text", text)
    axes.text(0.5, 0.45, text, ha="center", va="center", fontsize=19, color=color(panel, value))
    axes.axis("off")


def bars(axes, panel, ask, unit):
    (target,) = panel["targets"]
    found = sorted((float(one["value"][1]), named(target, one["metric"])) for one in ask(target))
    axes.barh([name for _, name in found], [value for value, _ in found], color=NAMED["green"], height=0.6)
    for at, (value, _) in enumerate(found):
        axes.text(value, at, f" {shown(value, unit)}", fontsize=5.5, va="center", color=DIM)
    dress(axes)
    axes.set_xticks([])
    axes.margins(x=0.18)


def cells(axes, panel, ask, _):
    merged, columns = {}, []
    several = len(panel["targets"]) > 1
    for target in panel["targets"]:
        for one in ask(target):
            key = one["metric"].get("instance") or one["metric"].get("allocation")
            value = f"Value #{target['refId']}" if several else "Value"
            merged.setdefault(key, {}).update(one["metric"], **{value: short(float(one["value"][1]))})
            columns += [name for name in (*one["metric"], value) if name not in columns]
    options = panel["transformations"][-1]["options"]
    columns = [name for name in columns if not options["excludeByName"].get(name)]
    heads = [options["renameByName"].get(name, name) for name in columns]
    body = [[row.get(name, "") for name in columns] for row in merged.values()]
    widths = [max(len(text) for text in column) + 3 for column in zip(heads, *body)]
    height = axes.get_window_extent().height / axes.figure.dpi
    room = min(1, 0.26 * (len(body) + 1) / height)
    made = axes.table(
        body, colLabels=heads, cellLoc="left", colLoc="left", edges="horizontal",
        colWidths=[width / sum(widths) for width in widths], bbox=[0, 1 - room, 1, room],
    )  # fmt: skip
    made.auto_set_font_size(False)
    made.set_fontsize(6.5)
    for cell in made.get_celld().values():
        cell.set_edgecolor(GRID)
        cell.get_text().set_color(TEXT)
    axes.axis("off")


DRAWN = {"timeseries": lines, "heatmap": heat, "stat": single, "bargauge": bars, "table": cells}


def draw(board, values, ask, path):
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"]) + 2
    page = plt.figure(figsize=(24 * COLUMN, height * LINE), facecolor=PAPER)

    def place(x, y, w, h):
        """In parts of the page, from its lower left corner."""
        return [x / 24, 1 - (y + h) / height, w / 24, h / height]

    chosen = "   ".join(f"{name}: {value}" for name, value in values.items())
    page.text(0.005, 1 - 0.9 / height, board["title"], fontsize=14, fontweight="bold", color=TEXT, va="center")
    page.text(0.995, 1 - 0.9 / height, chosen, fontsize=7, color=DIM, ha="right", va="center")
    for panel in board["panels"]:
        x, y, w, h = (panel["gridPos"][side] for side in "xywh")
        y += 2
        if panel["type"] == "row":
            page.text(x / 24 + 0.005, 1 - (y + 0.55) / height, panel["title"], fontsize=9, color=TEXT, va="center")
            continue
        card = page.add_axes(place(x + 0.08, y + 0.1, w - 0.16, h - 0.2), facecolor=CARD)
        card.set_xticks([])
        card.set_yticks([])
        for spine in card.spines.values():
            spine.set_color(GRID)
        card.text(0.15 / w, 1 - 0.25 / h, panel["title"], transform=card.transAxes, fontsize=8, fontweight="bold",
                  color=TEXT, va="top")  # fmt: skip
        graph = panel["type"] in ("timeseries", "heatmap", "bargauge")
        left = {"timeseries": 0.95, "heatmap": 0.95, "bargauge": 2.2}.get(panel["type"], 0.3)
        bottom = {"timeseries": 2.1, "heatmap": 0.8}.get(panel["type"], 0.3)
        axes = page.add_axes(
            place(x + left, y + 1.2, w - left - (0.35 if graph else 0.3), h - 1.2 - bottom), facecolor=CARD
        )
        DRAWN[panel["type"]](axes, panel, ask, panel["fieldConfig"]["defaults"]["unit"])
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    page.savefig(drawn, dpi=100, facecolor=PAPER)
    plt.close(page)
    Image.open(drawn).convert("RGB").quantize(128).save(path, optimize=True)
