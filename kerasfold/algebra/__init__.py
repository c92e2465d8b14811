"""The affine operator: geometry (sizes only), weights, and their algebra. NumPy only.

Every affine layer of a Keras CNN is one value of one type, a general dilated convolution
plus a bias. Along each spatial axis, with ``n`` input samples,

    y[p, o] = bias[o] + sum_{t, i} kernel[t, i, o] * x^[p*s + t*r - lo, i]
                      + sum_t      ones[t, o]      * 1^[p*s + t*r - lo]

where ``x^`` is ``x`` cropped, then spread by ``L - 1`` zeros between samples, and zero
outside; ``1^`` is the same for an image of ones (the homogeneous coordinate: a bias that a
later zero padding must not see). ``s`` is the stride, ``r`` the dilation of the taps, ``L``
the upsampling factor. Such operators are closed under composition, sum and concatenation;
the exceptions raise `Refused`, with the reason.

A `Rearrangement` reshapes an image and permutes its axes; operators pass it where they can. A
`Reduction` is a mean over samples of one.

Planning composes `Geometry` values, which hold sizes alone; emission composes `Operator`
values, which also hold the weights, in float64, a chain of them in its cheapest order.
"""

from .axis import Axis, Pair, Refused
from .border import Box, frame_boxes, frame_of, restricted
from .chain import (
    ENTRY,
    LONGEST,
    Order,
    chain,
    cheapest_order,
    collapsed,
    one_of,
    product_cost,
    shifted,
)
from .geometry import (
    Geometry,
    add_geometry,
    concatenate_geometry,
    require_plain,
)
from .operator import Operator, add, compose, concatenate
from .passage import passed
from .product import Array, regroup
from .rearrange import Rearrangement
from .rearranged import Rearranged, applied, rearranged, settled
from .reduction import Reduction, windows_of
from .tiles import (
    Group,
    Place,
    Tiling,
    mirrored,
    mirrored_geometry,
    mirrored_tiling,
    products,
    tile,
    tile_geometry,
    tiling_of,
)

__all__ = [
    "ENTRY",
    "LONGEST",
    "Array",
    "Axis",
    "Box",
    "Geometry",
    "Group",
    "Operator",
    "Order",
    "Pair",
    "Place",
    "Rearranged",
    "Rearrangement",
    "Reduction",
    "Refused",
    "Tiling",
    "add",
    "add_geometry",
    "applied",
    "chain",
    "cheapest_order",
    "collapsed",
    "compose",
    "concatenate",
    "concatenate_geometry",
    "frame_boxes",
    "frame_of",
    "mirrored",
    "mirrored_geometry",
    "mirrored_tiling",
    "one_of",
    "passed",
    "product_cost",
    "products",
    "rearranged",
    "regroup",
    "require_plain",
    "restricted",
    "settled",
    "shifted",
    "tile",
    "tile_geometry",
    "tiling_of",
    "windows_of",
]
