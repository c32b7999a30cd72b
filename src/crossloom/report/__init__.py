"""The HTML report of a run: one self-contained page that opens offline, every figure from `result.json`."""

from crossloom.report.page import REPORT, render, write_report
from crossloom.report.run import Run, read_run

__all__ = ["REPORT", "Run", "read_run", "render", "write_report"]
