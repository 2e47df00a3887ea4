"""The figures as pictures: bars for each scenario, lines where something grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from benchmarks.peers import PEERS
from benchmarks.results import Results
from benchmarks.scenarios import CROWD, GROUPS, ROUTES, SCENARIOS

README = "json"
"""The scenario whose picture the README shows by itself."""
_OURS, _BASE, _OTHERS = "#d9480f", "#495057", "#adb5bd"
_COLUMNS = 2


def draw(results: Results, folder: Path) -> Mapping[str, str]:
    """Writes a picture for each group that was measured; returns the files' names by group."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    with mpl.rc_context():
        _set_style()
        for group in GROUPS:
            if names := results.scenarios(group):
                figure = _lines(results, names) if group in {CROWD, ROUTES} else _bars(results, names)
                drawn[group] = f"benchmarks-{group.lower().replace(' ', '-')}.svg"
                _save(figure, folder / drawn[group])
        if README in results.scenarios(SCENARIOS[README].group):
            _save(_bars(results, [README]), folder / f"benchmarks-{README}.svg")
    return drawn


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


def _set_style() -> None:
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: small files, readable by machines
    mpl.rcParams["svg.hashsalt"] = "telex"  # the same figures make the same file
    mpl.rcParams["font.size"] = 9
    mpl.rcParams["axes.spines.top"] = mpl.rcParams["axes.spines.right"] = False


def _bars(results: Results, names: Sequence[str]) -> Figure:
    """A panel for each scenario, the cheapest on top."""
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(5 * columns + 2 * (columns == 1), 3.4 * rows), layout="constrained", facecolor="white")
    for number, name in enumerate(names, 1):
        _panel(figure.add_subplot(rows, columns, number), results, name)
    return figure


def _panel(axes: Axes, results: Results, name: str) -> None:
    figures = {peer: best for peer in PEERS if (best := results.best(name, peer)) is not None}
    peers = sorted(figures, key=figures.__getitem__, reverse=True)
    widths = [figures[peer] for peer in peers]
    bars = axes.barh([PEERS[peer].title for peer in peers], widths, color=[_color(peer) for peer in peers])
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.set_title(f"{SCENARIOS[name].title}, {SCENARIOS[name].unit}", loc="left", fontsize=10, x=-0.5)
    axes.margins(x=0.12, y=0.02)
    # Each bar has its figure.
    axes.xaxis.set_visible(False)
    axes.spines.bottom.set_visible(False)
    axes.tick_params(length=0)


def _lines(results: Results, names: Sequence[str]) -> Figure:
    """A line for each peer; where it goes on level, growth costs nothing."""
    figure = Figure(figsize=(10, 5), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for number, peer in enumerate(results.peers(names)):
        points = [(SCENARIOS[name].count, best) for name in names if (best := results.best(name, peer)) is not None]
        ours = PEERS[peer].module.startswith("telex")
        style, width = ("-", 2.5) if ours else ("--", 1)
        color, title = mpl.colormaps["tab20"](number), PEERS[peer].title
        axes.plot(*zip(*points, strict=True), style, color=color, linewidth=width, marker=".", label=title)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.set_xlabel(SCENARIOS[names[0]].group.removeprefix("Many ").capitalize())
    axes.set_ylabel(SCENARIOS[names[0]].unit)
    axes.legend(bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False, fontsize=8)
    return figure


def _color(peer: str) -> str:
    if PEERS[peer].module.startswith("telex"):
        return _OURS
    return _BASE if peer in {PEERS[other].baseline for other in PEERS} else _OTHERS
