"""All lift rules: importing this module registers them."""

from kerasfold.lift import image_rules, layer_rules, layout_rules, op_rules, wrapper_rules
from kerasfold.lift.registry import RULES, lifts

__all__ = [
    "RULES",
    "image_rules",
    "layer_rules",
    "layout_rules",
    "lifts",
    "op_rules",
    "wrapper_rules",
]
