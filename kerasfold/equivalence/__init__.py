"""Two models: the same function, and as accurate?

`verify(a, b, data=...)` takes your own inputs (arrays, a `tf.data.Dataset`, a
`keras.utils.PyDataset`), batch by batch, and reports how often the top class agrees and is among
the best five; with labels (`labels=`, or data in pairs `(x, y)`) how accurate either model is,
and how often they agree on each class. `strategy=` spreads it over the devices of a
`tf.distribute` strategy, and over the workers of a MultiWorkerMirroredStrategy, each with `data`
of its own. Where sizes are free, a size that the models run at is looked for; `fold` and `verify`
take `input_shape=` (without the batch) or `data=` to be told one.

Weights are taken for what they are stored as, give or take their rounding: what eight times that
may change is no difference. In float32 that is some 1e-6 of an output; where weights are stored in
float16 or bfloat16, it is some 1 or 10 % of a kernel.

What callers rely on is compared too: dtypes, structure, keys, a batch that is free, and names
that a person gave. `strict_signature=False` only notes it.

`b` may also be what is deployed, by its path (`kerasfold.verify(model, "model.tflite")`): a
`.tflite`, `.onnx` or OpenVINO `.xml` file (with the extra `litert`, `onnxruntime` or `openvino`),
or the folder of a SavedModel. It is run as it is, on a processor of this machine, and its errors
are held against the Keras original in float64; for builds in float16 or int8, allow some with
`atol=` and `rtol=`, and give `data=` like what it was calibrated on. The report then has
percentiles of them. A SavedModel whose graph runs Python or reaches files is not loaded.

`fold`, `verify` and the command line run on Keras's TensorFlow, JAX, torch and NumPy backends
(NumPy's convolves with JAX). What is compared in float64 is computed as such, on the CPU, also
where a backend has no float64 unless told (JAX) or Keras rounds means and BatchNormalizations to
float32 (all but TensorFlow's); models as they are run on the CPU and on every GPU, TF32 and its
like off. Nothing of that is left changed, and no random number is drawn. Keras's OpenVINO backend
computes float64 in float32: there `fold(verify=False)` alone runs.
"""
