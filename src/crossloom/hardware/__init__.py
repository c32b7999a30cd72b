"""The chip as data: schema, presets, devices and components, every figure with its unit and its source."""

from crossloom.hardware.components import (
    ACTION_HELP,
    Action,
    Component,
    Family,
    MixedFamilies,
    components,
    family,
    family_names,
)
from crossloom.hardware.describe import Row, describe, describe_components, schema_reference
from crossloom.hardware.load import device_names, load, loads, names, override
from crossloom.hardware.schema import (
    AdcErrors,
    Array,
    Chip,
    Device,
    Hierarchy,
    Node,
    Precision,
    columns_per_weight,
)

__all__ = [
    "ACTION_HELP",
    "Action",
    "AdcErrors",
    "Array",
    "Chip",
    "Component",
    "Device",
    "Family",
    "Hierarchy",
    "MixedFamilies",
    "Node",
    "Precision",
    "Row",
    "columns_per_weight",
    "components",
    "describe",
    "describe_components",
    "device_names",
    "family",
    "family_names",
    "load",
    "loads",
    "names",
    "override",
    "schema_reference",
]
