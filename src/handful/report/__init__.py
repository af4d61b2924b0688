"""Pictures of a run, and the report: one self-contained HTML file.

Importing this room imports matplotlib; the rest of the package imports it inside the function that needs it.
"""

from handful.report.curves import fitted_curves
from handful.report.html import write_comparison, write_report, write_run_plots
from handful.report.overview import class_sheet, frame_sheet
from handful.report.plots import (
    adaptation_curve,
    contact_sheet,
    forest,
    learning_curve,
    save,
    task_histogram,
)
from handful.report.rates import draw_step_sizes, step_sizes
from handful.report.record import write_record
from handful.report.task import draw_task
from handful.report.timeline import score_timeline

__all__ = [
    "adaptation_curve",
    "class_sheet",
    "contact_sheet",
    "draw_step_sizes",
    "draw_task",
    "fitted_curves",
    "forest",
    "frame_sheet",
    "learning_curve",
    "save",
    "score_timeline",
    "step_sizes",
    "task_histogram",
    "write_comparison",
    "write_record",
    "write_report",
    "write_run_plots",
]
