"""Which tensors of an affine program to materialise, and how.

For `"latency"`, nothing is merged that the roofline of the runtime named calls slower, or where
none is named that of TensorFlow or of XLA (`rooflines.py`). Weights or multiplications grow to more
than 1.5 times those of what is merged only for a predicted gain of 1.3 and more, which the report
then says. A slice of channels stays a slice, a pool a pool and a scale a scale.

No plan is taken that is worse than the original under its objective; of the timed ones, none that
is surely slower. The objectives but `"measured"` look at sizes alone, and at whether biases are
zero: nothing is timed.

Before it is planned, a model is rewritten where that makes a cheaper plan
(`plan.cheapest.REWRITINGS`). Channels that nobody reads, or that are constant, are not computed:
what reads them has their constant in its bias, or an image of it (`lift.need`, `lift.pruned`);
but ONNX Runtime, where it is told, keeps a multiple of four of those that are one, and where
seconds count, one pixel made of many has all of theirs unless an eighth of them goes.
A call that works on every pixel by itself, such as an activation or a sum, computes those that are
read: a stride, a crop or a slice behind it moves before it, and on into what it reads
(`lift.narrowed`). What works on pixels runs before they are repeated by a nearest upsampling; a
shuffle of channels passes an activation; a positive scale, and a shift, pass a maximum of windows
either way, and go before one of several tensors; a monotone activation of a sum works on the maxima
(`lift.commuted`). Positive gains pass what is positively homogeneous, such as ReLU, and merge into
the convolution before it or into those behind; a shift stays, in float32 and float64
(`lift.gains`). Layers that are not lifted, and start or end with a linear map of the channels, such
as an LSTM, take gains and shifts into the weights of that map (`lift.absorbed`). Which laws an
activation has is told by one table (`lift.activations`), and what it costs counts. `"measured"`
times the model as it is, but for channels that are not computed.

An objective is a row of `cost.OBJECTIVES`: what costs are compared by. A search method is a
function of a `Search` and a component that returns a form for each node that it materialises, and
a row of `plan.methods.METHODS`.

Example:
    >>> from kerasfold.cost import OBJECTIVES, Objective
    >>> OBJECTIVES["depth"] = Objective(lambda cost: (cost.layers, cost.macs))
    >>> layers = [keras.layers.Conv2D(1, 3), keras.layers.Conv2D(1, 3)]
    >>> chain = keras.Sequential([keras.Input((9, 9, 1)), *layers])
    >>> chain.fold(objective="depth").fold_report.layers_after
    1
    >>> del OBJECTIVES["depth"]
"""
