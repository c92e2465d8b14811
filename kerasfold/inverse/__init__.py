"""Convolutions taken apart: one factor by the other, or both by a form to be found.

`kerasfold.factor(kernel, into)` writes one convolution as several, exactly where it has that
form, and else as near as is found, with the error measured, and bounded for any input:

- `"chain"`: convolutions of `sizes` | with one channel in 1-D and 2-D, the factors of a
  polynomial; with several a search, which is no proof that there is none
- `"spatial"`: kx1, then 1xk | singular values; in 3-D a tensor train
- `"separable"`: depthwise, then pointwise | singular values of each input channel
- `"bottleneck"`: 1x1, kxk, 1x1 | higher-order singular values, and orthogonal iteration
- `"pool"`: a convolution, then an average pooling | least squares
- `"dilated"`: fewer taps, apart | the zeros between them

Without a `tolerance` only rounding is left out. The smallest form that meets it is given; where
none is found, or where a size is named (`rank=`, `ranks=`, `multiplier=`, `filters=`), the
nearest of that size. A `"chain"` is searched for by the clock, 10 seconds unless `budget=` says
otherwise, so that a slower machine may find less. A kernel of a DepthwiseConv stays depthwise
with `depthwise=True`. `factors_into("name")` adds a form to the table.

`kerasfold.deconvolve(kernel, first=...)` or `(kernel, last=...)` divides: of a kernel and the
factor that is applied first or last, a kernel or a built Keras layer, it finds the other one.

What does not divide is divided by least squares, with `relative_residual` saying what is left,
and no guess at what the kernel may have looked like. `condition` says how well the divisor can be
inverted; where it cannot, it is infinite, and of all the factors that do as well the shortest is
given.
"""
