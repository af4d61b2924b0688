"""How numbers are said, on the screen, on the page and in the pictures: `96.7 ± 0.4 %`."""

from __future__ import annotations

import math
from collections.abc import Sequence


def name(metric: str) -> str:
    """The metric in words: `mean_squared_error` is read as `mean squared error`."""
    return metric.replace("_", " ")


def scale(metric: str) -> float:
    """What a value is multiplied by on the screen: 100 for accuracies and areas, which are fractions in JSON."""
    return 100.0 if any(word in metric.lower() for word in ("accuracy", "auc")) else 1.0


def axis(metric: str, of: str = "") -> str:
    """The label of an axis, with its unit: `accuracy of a task (%)`."""
    return " ".join(filter(None, [name(metric), of, "(%)" if scale(metric) == 100 else ""]))


def lower_is_better(metric: str) -> bool:
    """Whether the best value is the lowest one."""
    return any(word in metric.lower() for word in ("error", "loss", "mse"))


def better(value: float, than: float | None, metric: str) -> bool:
    """Whether a value of the metric is the better one; any is better than none, or than one that is not a number."""
    return than is None or math.isnan(than) or (value < than if lower_is_better(metric) else value > than)


def measured(mean: float, ci95: float | None = None, metric: str = "accuracy", signed: bool = False) -> str:
    """`96.7 ± 0.4 %`: a mean with its 95 % interval, both as in JSON (an accuracy is a fraction).

    Percentages have one decimal, differences (`signed`) and narrow intervals two; other metrics have as many
    as give the interval two digits.
    """
    if not math.isfinite(mean):
        return "not a number"
    percent = scale(metric) == 100
    mean, ci = mean * scale(metric), (ci95 or 0.0) * scale(metric)
    known = math.isfinite(ci) and ci > 1e-9 * abs(mean)  # equal values may differ by rounding
    if percent:
        digits = 2 if signed or (known and ci < 0.05) else 1
    else:
        reference = ci if known else abs(mean) / 10 or 1.0  # no interval: three digits of the mean
        digits = min(max(1 - math.floor(math.log10(reference)), 0), 6)
    interval = f" ± {ci:.{digits}f}" if known else ""
    unit = (" points" if signed else " %") if percent else ""
    return f"{mean:{'+' if signed else ''}.{digits}f}{interval}{unit}".replace("-", "−")


def protocol(way: int | None, shot: int | None, query: int | None) -> str:
    """`5-way 1-shot, 15 queries a class`; tasks without classes (one way) are `10-shot, 10 queries`."""
    classes = way is not None and way > 1
    parts = [" ".join(filter(None, [f"{way}-way" if classes else "", f"{shot}-shot" if shot else ""]))]
    if query:
        parts.append(("1 query" if query == 1 else f"{query} queries") + (" a class" if classes else ""))
    return ", ".join(filter(None, parts))


def conditions(kind: str, norm_stats: str | None, inner_steps: int | None) -> str:
    """`inductive (support statistics), 2 inner steps`: whose batch-norm statistics judged the queries, and when."""
    statistics = f" ({name(norm_stats)} statistics)" if norm_stats not in (None, "none") else ""
    return f"{kind}{statistics}" + ("" if inner_steps is None else f", {count(inner_steps, 'inner step')}")


def count(number: int, noun: str) -> str:
    """`1 task`, `20,000 tasks`, `5 classes`."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def named(names: Sequence[str], most: int = 6) -> str:
    """`robin, wren and 3 more`: the first of some names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def printable(path: object) -> str:
    """A path or a file's name as text that can be printed and written: bytes that are no UTF-8 as `\\xe4`."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def duration(seconds: float) -> str:
    """`41 s`, `12 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
