"""Counted actions × sourced components → area, energy and latency.

report = estimate(mapping)
print(report.table())
"""

from crossloom.cost.actions import Counts, NodeWork, Work, count
from crossloom.cost.activity import Activity, LayerActivity, activity_of, measure
from crossloom.cost.checks import Check, checks
from crossloom.cost.duplication import duplication_for_area
from crossloom.cost.estimate import estimate
from crossloom.cost.peak import Figures, Peak, Rating, peak
from crossloom.cost.report import Comparison, ComponentCost, CostReport, LayerCost, Programming, compare

__all__ = [
    "Activity", "Check", "Comparison", "ComponentCost", "CostReport", "Counts", "Figures", "LayerActivity",
    "LayerCost", "NodeWork", "Peak", "Programming", "Rating", "Work", "activity_of", "checks", "compare", "count",
    "duplication_for_area", "estimate", "measure", "peak",
]  # fmt: skip
