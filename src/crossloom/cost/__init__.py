"""Counted actions × sourced components → area, energy and latency.

report = estimate(mapping)
print(report.table())
"""

from crossloom.cost.actions import Counts, NodeWork, Work, count
from crossloom.cost.activity import Activity, LayerActivity, activity_of, measure
from crossloom.cost.estimate import estimate
from crossloom.cost.report import Comparison, ComponentCost, CostReport, LayerCost, Programming, compare

__all__ = [
    "Activity", "Comparison", "ComponentCost", "CostReport", "Counts", "LayerActivity", "LayerCost", "NodeWork",
    "Programming", "Work", "activity_of", "compare", "count", "estimate", "measure",
]  # fmt: skip
