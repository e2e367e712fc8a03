"""Charts as specifications of Vega-Lite, from numbers: pure functions without a library.

Colours of lines and text are variables of the page's style sheet, so that light and dark pages share a chart. Numbers
that are not finite are None. No name of the data is part of a field's name, where dots and brackets have a meaning.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["COLOURS", "Spec", "bars", "forest", "heat_map", "intervals", "lines", "points", "stacked"]

Spec = dict[str, Any]
"""A chart as JSON: a specification of Vega-Lite."""

COLOURS = 10
"""Colours of lines and classes; of more, they repeat."""
_PALETTE = [f"var(--c{i})" for i in range(1, COLOURS + 1)]
_SHAPES = ["circle", "triangle-up", "square", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
_LABELLED = 14  # classes up to which the cells of a heat map show their numbers
_MARKED = 30  # points up to which every point of a line has a marker
_LEGEND = 24  # classes in the legend of a map; of more, the first
_SHARE = ".1%"


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x: str,
    y: str,
    *,
    rules: Mapping[str, float] | None = None,
    levels: Mapping[str, float] | None = None,
    whole: bool = False,
    share: bool = False,
    zero: bool = False,
    low: float | None = None,
    errors: Mapping[str, Sequence[float]] | None = None,
) -> Spec:
    """Lines of values against x.

    Args:
        series: name -> points (x, y).
        x: title of the axis.
        y: likewise.
        rules: name -> x of an upright dashed line.
        levels: name -> y of a level dotted line.
        whole: whether x counts something, such as epochs.
        share: whether y are shares, shown in percent on an axis from 0 to 1.
        zero: whether the axis of y begins at 0.
        low: the least x of the axis; None for that of the points.
        errors: name -> how far an upright bar reaches to both sides of each point.
    """
    values = [{"s": name, "x": _number(a), "y": _number(b)} for name, points in series.items() for a, b in points]
    ends = [
        {"s": name, "x": _number(x), "low": _number(y - e), "high": _number(y + e)}
        for name, of in (errors or {}).items()
        for (x, y), e in zip(series[name], of, strict=True)
    ]
    few = max((len(points) for points in series.values()), default=0) <= _MARKED
    ticks: dict[str, Any] = {"format": "d", "tickMinStep": 1, "tickCount": 10} if whole else {"tickCount": 5}
    scale: dict[str, Any] = {"domain": [0, 1]} if share else {"zero": zero}
    across: dict[str, Any] = {"nice": False, "zero": False} if low is None else {"nice": False, "domainMin": low}
    line: Spec = {
        "data": {"values": values},
        "mark": {"type": "line", "point": {"size": 28} if few else False, "strokeWidth": 2},
        "encoding": {
            "x": _axis("x", x, axis=ticks, scale=across),
            "y": _axis("y", y, scale=scale, axis={"format": "%"} if share else {}),
            "color": _colour("s", list(series)),
            "tooltip": [
                {"field": "s", "title": "line"},
                {
                    "field": "x",
                    "type": "quantitative",
                    "title": x,
                    **({"format": "d"} if whole else {"format": ".3~f"}),
                },
                {"field": "y", "type": "quantitative", "title": y, "format": _SHARE if share else ".4~f"},
            ],
        },
    }
    # An invisible wide line takes the pointer, which a line of two pixels hardly can.
    wide = {**line, "mark": {"type": "point", "size": 260, "opacity": 0, "filled": True}}
    layers = [*_upright(rules or {}), *_level(levels or {}), *_bars_of_error(ends, list(series)), line, wide]
    return _chart(260, layer=layers, resolve={"legend": {"color": "shared"}})


def bars(values: Sequence[Mapping[str, Any]], x: str, y: str) -> Spec:
    """A histogram of two kinds of labels, one over the other; `memory.histogram` makes the bars."""
    return _chart(
        240,
        data={"values": [dict(v) for v in values]},
        mark={"type": "bar", "opacity": 0.6, "binSpacing": 0},
        encoding={
            "x": {
                "field": "low", "type": "quantitative", "bin": {"binned": True, "step": _step(values)}, "title": x,
                "scale": {"domain": [0, 1]}, "axis": {"values": [0, 0.25, 0.5, 0.75, 1], "format": ".2~f"},
            },
            "x2": {"field": "high"},
            "y": {**_axis("share", y, axis={"format": "%"}), "stack": None},
            "color": _colour("labels", ["right", "wrong"], ["var(--good)", "var(--bad)"], "given label"),
            "tooltip": [
                {"field": "labels", "title": "given label"},
                {"field": "low", "type": "quantitative", "title": "p from"},
                {"field": "high", "type": "quantitative", "title": "p to"},
                {"field": "count", "type": "quantitative", "title": "samples"},
                {"field": "share", "type": "quantitative", "title": "share of its kind", "format": _SHARE},
            ],
        },
    )  # fmt: skip


def stacked(values: Sequence[tuple[str, Sequence[tuple[str, float]]]], x: str, colours: Mapping[str, str]) -> Spec:
    """Shares that add up to 1, as a bar per row.

    Args:
        values: (name of the row, its parts (name, share) from left to right).
        x: title of the axis.
        colours: name of a part -> its colour, in the order of the legend.
    """
    rows = [{"r": r, "s": s, "v": _number(v), "o": i} for r, parts in values for i, (s, v) in enumerate(parts)]
    names = [r for r, _ in values]
    return _chart(
        max(60, 40 * len(names)),
        data={"values": rows},
        mark={"type": "bar", "cornerRadius": 2},
        encoding={
            "y": {"field": "r", "type": "nominal", "sort": names, "title": None, "axis": {"labelLimit": 230}},
            "x": {**_axis("v", x, axis={"format": "%"}, scale={"domain": [0, 1]}), "stack": "zero"},
            "order": {"field": "o"},
            "color": _colour("s", list(colours), list(colours.values())),
            "tooltip": [
                {"field": "r", "title": "samples"},
                {"field": "s", "title": "prediction"},
                {"field": "v", "type": "quantitative", "title": "share", "format": _SHARE},
            ],
        },
    )


def heat_map(
    table: np.ndarray, rows: Sequence[str], columns: Sequence[str], row: str, column: str, value: str, top: float = 1.0
) -> Spec:
    """A table of numbers as colours, with the numbers in the cells where there are few.

    Args:
        table: float [rows, columns]; NaN leaves a cell empty.
        rows: names of the rows.
        columns: names of the columns.
        row: title of the rows.
        column: title of the columns.
        value: what a number is.
        top: the number of the lightest colour; the darkest is 0.
    """
    cells = [
        {"r": r, "c": c, "v": _number(table[i, j])}
        for i, r in enumerate(rows)
        for j, c in enumerate(columns)
        if math.isfinite(table[i, j])
    ]
    place: Spec = {
        "y": {"field": "r", "type": "nominal", "sort": list(rows), "title": row, "axis": {"labelLimit": 150}},
        "x": {
            "field": "c", "type": "nominal", "sort": list(columns), "title": column,
            "axis": {"orient": "top", "labelAngle": -40 if len(columns) > 2 else 0, "labelLimit": 130},
        },
    }  # fmt: skip
    colour = {
        "field": "v", "type": "quantitative", "title": value,
        "scale": {"domain": [0, top], "scheme": "viridis", "clamp": True},
        "legend": {"orient": "bottom", "gradientLength": 200, "gradientThickness": 10, "format": ".2~f"},
    }  # fmt: skip
    tooltip = [
        {"field": "r", "title": row},
        {"field": "c", "title": column},
        {"field": "v", "type": "quantitative", "title": value, "format": ".3f"},
    ]
    layers: list[Spec] = [{"mark": {"type": "rect"}, "encoding": {**place, "color": colour, "tooltip": tooltip}}]
    if len(columns) <= _LABELLED:
        dark = {"test": f"datum.v > {0.55 * top:.4f}", "value": "#111"}
        text = {"text": {"field": "v", "type": "quantitative", "format": ".2f"}}
        label = {"mark": {"type": "text", "fontSize": 11, "tooltip": None}}
        layers.append({**label, "encoding": {**place, **text, "color": {"condition": dark, "value": "#fff"}}})
    height = max(60, min(26, 900 // max(len(rows), 1)) * len(rows))
    return _chart(height, data={"values": cells}, layer=layers)


def points(
    values: Sequence[Mapping[str, Any]], classes: Sequence[str], modalities: Sequence[str], wrong: bool = False
) -> Spec:
    """Samples in a plane: colours are classes, symbols are modalities.

    Args:
        values: a mapping per sample: x, y, "k" (name of its class), "m" (modality), "i" (number of the sample in the
            page, for its tooltip), and with `wrong` "w", "right" or "wrong".
        classes: all classes, in the order of their colours.
        modalities: all modalities, in the order of their symbols.
        wrong: whether samples with wrong labels have a rim.
    """
    hidden = {"axis": {"labels": False, "ticks": False, "domain": False, "grid": False}, "title": None}
    shown = list(classes[:_LEGEND])
    legend = {"values": shown, "columns": 1, "symbolType": "circle", "labelLimit": 150}
    encoding: Spec = {
        "x": {"field": "x", "type": "quantitative", "scale": {"zero": False}, **hidden},
        "y": {"field": "y", "type": "quantitative", "scale": {"zero": False}, **hidden},
        "color": {**_colour("k", classes), "legend": {**legend, "title": "class"}},
        "shape": {
            "field": "m", "type": "nominal", "sort": list(modalities), "title": "modality", "legend": {"columns": 1},
            "scale": {"domain": list(modalities), "range": _cycle(_SHAPES, len(modalities))},
        },
        "opacity": {"condition": {"param": "chosen", "value": 0.85}, "value": 0.06},
    }  # fmt: skip
    if wrong:
        rim = {"domain": ["right", "wrong"], "range": ["transparent", "var(--ink)"]}
        encoding["stroke"] = {"field": "w", "type": "nominal", "scale": rim, "legend": None}
    chosen = {"name": "chosen", "select": {"type": "point", "fields": ["k"]}, "bind": "legend"}
    mark = {"type": "point", "filled": True, "size": 60, "strokeWidth": 1.3, "tooltip": {"content": "data"}}
    return _chart(460, data={"values": [dict(v) for v in values]}, params=[chosen], mark=mark, encoding=encoding)


def intervals(values: Sequence[tuple[str, float, float, float]], x: str, levels: Mapping[str, float]) -> Spec:
    """A value with its interval per row.

    Args:
        values: (name, value, low, high), from top to bottom; names differ.
        x: title of the axis.
        levels: name -> x of an upright dashed line.
    """
    rows = [{"n": n, "v": _number(v), "low": _number(a), "high": _number(b)} for n, v, a, b in values]
    names = [n for n, *_ in values]
    y = {"field": "n", "type": "nominal", "sort": names, "title": None, "axis": {"labelLimit": 190}}
    tooltip = [
        {"field": "n", "title": "row"},
        *({"field": f, "type": "quantitative", "title": t, "format": ".3f"} for f, t in _ENDS),
    ]
    rule = {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": {**_interval(x), "y": y, "tooltip": tooltip}}
    dot_at = {"x": _axis("v", x, scale={"zero": False}, axis=_FEW), "y": y, "tooltip": tooltip}
    dot = {"mark": {"type": "point", "filled": True, "size": 80, "opacity": 1}, "encoding": dot_at}
    marked = [{**layer, "data": {"values": rows}} for layer in (rule, dot)]
    return _chart(max(60, 26 * len(rows)), layer=[*_upright(levels), *marked])


def forest(values: Sequence[tuple[str, float, float, float]], x: str) -> Spec:
    """Differences with their intervals, beside a line at 0; arguments as of `intervals`."""
    return intervals(values, x, {"no difference": 0.0})


_FEW = {"tickCount": 6}
_ENDS = (("v", "value"), ("low", "from"), ("high", "to"))


def _interval(x: str) -> Spec:
    return {"x": _axis("low", x, scale={"zero": False}, axis=_FEW), "x2": {"field": "high"}}


def _chart(height: int, **parts: Any) -> Spec:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        **parts,
    }


def _axis(
    name: str, title: str, *, axis: Mapping[str, Any] | None = None, scale: Mapping[str, Any] | None = None
) -> Spec:
    out: Spec = {"field": name, "type": "quantitative", "title": title}
    return out | ({"axis": dict(axis)} if axis else {}) | ({"scale": dict(scale)} if scale else {})


def _colour(field: str, names: Sequence[str], colours: Sequence[str] = (), title: str | None = None) -> Spec:
    """Colours of names; without a legend where there is only one."""
    scale = {"domain": list(names), "range": list(colours) or _cycle(_PALETTE, len(names))}
    legend = {"orient": "bottom", "columns": 3, "title": title, "labelLimit": 240} if len(names) > 1 else None
    return {"field": field, "type": "nominal", "scale": scale, "legend": legend}


def _upright(rules: Mapping[str, float]) -> list[Spec]:
    values = [{"n": name, "x": _number(x)} for name, x in rules.items()]
    mark = {"type": "rule", "strokeDash": [5, 4], "color": "var(--muted)", "strokeWidth": 1.2}
    tip = [{"field": "n", "title": "line"}, {"field": "x", "type": "quantitative", "title": "at"}]
    encoding = {"x": {"field": "x", "type": "quantitative"}, "tooltip": tip}
    return [{"data": {"values": values}, "mark": mark, "encoding": encoding}] if values else []


def _level(levels: Mapping[str, float]) -> list[Spec]:
    values = [{"n": name, "y": _number(y)} for name, y in levels.items()]
    mark = {"type": "rule", "strokeDash": [2, 3], "color": "var(--muted)", "strokeWidth": 1.2}
    tip = [{"field": "n", "title": "line"}, {"field": "y", "type": "quantitative", "title": "at", "format": ".3f"}]
    encoding = {"y": {"field": "y", "type": "quantitative"}, "tooltip": tip}
    return [{"data": {"values": values}, "mark": mark, "encoding": encoding}] if values else []


def _bars_of_error(ends: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Spec]:
    if not ends:
        return []
    y = {"field": "low", "type": "quantitative", "scale": {"zero": False}}
    place = {"x": {"field": "x", "type": "quantitative"}, "y": y, "y2": {"field": "high"}}
    mark = {"type": "rule", "strokeWidth": 1.5, "opacity": 0.7}
    return [{"data": {"values": list(ends)}, "mark": mark, "encoding": {**place, "color": _colour("s", names)}}]


def _step(values: Sequence[Mapping[str, Any]]) -> float:
    return round(float(values[0]["high"]) - float(values[0]["low"]), 6) if values else 1.0


def _cycle(values: Sequence[str], count: int) -> list[str]:
    return [values[i % len(values)] for i in range(count)]


def _number(value: float) -> float | None:
    value = float(value)
    return float(f"{value:.5g}") if math.isfinite(value) else None
