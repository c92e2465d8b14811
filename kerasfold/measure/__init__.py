"""Plans timed on a runtime.

`objective="measured"` brings the ways to compute each linear part, the original among them, to a
runtime and times them in turns, at the batch that is told, those that may be the fastest over
several deployments (`measure.stopwatch`); parts of equal geometry are timed once per process, and
the original wins ties. Runtimes are `"tensorflow"` (default), `"xla"`, `"litert"`,
`"onnxruntime"` and `"openvino"`; the last three are extras (`pip install ".[litert]"` …), and a
missing one is an error that names its extra. OpenVINO's converter reports nothing home from here.

A runtime is a row of `measure.runtimes.RUNTIMES`: a function that brings a model to it, and the
packages it needs; the extra of its name in `pyproject.toml` installs them.

Example:
    >>> from kerasfold.measure.runtimes import RUNTIMES, Runtime
    >>> from kerasfold.read.model import input_structure
    >>> def eager(model, inputs):
    ...     packed = keras.tree.pack_sequence_as(input_structure(model), inputs)
    ...     return lambda: [np.asarray(model(packed, training=False))]
    >>> RUNTIMES["eager"] = Runtime(eager)
    >>> layers = [keras.layers.Conv2D(1, 3), keras.layers.Conv2D(1, 3)]
    >>> chain = keras.Sequential([keras.Input((9, 9, 1)), *layers])
    >>> folded = chain.fold(objective="measured", runtime="eager", budget=1)
    >>> folded.fold_report.objective
    'measured'
    >>> del RUNTIMES["eager"]
"""
