"""The ways to compute one materialised node from those it reads, one file each.

Zero padding *between* two layers makes a naively collapsed kernel wrong along the edges. Where a
layer pads what an earlier one made, kerasfold takes the first of these that is exact:

1. the padding sits before both anyway ('same' then 'valid'), or reads nothing but zeros, or
   nothing reads it: a matrix of all of the image is one with what it is of;
2. a shift before the padding (BatchNorm, Rescaling, a 1x1 with bias) becomes another padding
   value, or one more input channel of ones, through which the bias travels and vanishes in the
   padding by itself;
3. at a known image size, one convolution for the interior, and for the border, where that is
   cheaper, either the original layers on thin strips or composed convolutions, one for the rows,
   columns or corners that are as far from either end, each with its own bias as a constant;
4. the layers stay, and the report says why.

What 2. and 3. make is stored as `.keras`: `.h5` holds no `keras.ops` calls.

Beside what the table says, merged weights that overflow their dtype, or lose their digits to
underflow, stay apart. The usual reasons: a stride, then an upsampling that shares a divisor with
it, gives a result that changes from pixel to pixel; with channels first, TensorFlow and images as
wide as they have channels, or of unknown width, Keras adds a bias along the wrong axis, so none
is brought there; the padding of a strided 'same' layer depends on the image size (give the
`Input` a fixed one); a kernel as large as the image needs its size; and a concatenation of
several sources is no one convolution.

A form is a way to compute a materialised tensor: one convolution per input
(`forms/convolved.py`), a separable pair (`forms/separable.py`, a good one to read first), a pool
and a convolution, a framed interior. Write a class of `forms.form.Form` in a file of its own:
`propose` says, from sizes, when it applies and what it costs, or raises `Refused`; `needs` and
`bars` say at a glance where it never does, by traits of steps (`lift.program.Trait`);
`compose` gives its weights, in a record of its own; `emit` makes its layers out of what
`layers.build.Builder` offers; `words` is for the report. Then add a row to `forms.ways.FORMS`:
among forms that cost the same, the first is taken. A form that depends on numbers and not on
sizes alone asks for them with `known.weights`.
"""
