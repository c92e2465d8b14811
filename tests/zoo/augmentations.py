"""Layers that are random while a model trains, and pass what they get on at inference."""

from __future__ import annotations

from typing import Any

from keras import layers

RANGE = {"value_range": (0, 1)}
# With the strongest settings: at inference they must not matter.
AUGMENTATIONS: dict[type, dict[str, Any]] = {
    getattr(layers, name): settings
    for name, settings in {
        "AugMix": RANGE,
        "CutMix": {"factor": 1.0},
        "MixUp": {"alpha": 0.9},
        "RandAugment": {"factor": 1.0, **RANGE},
        "RandomBrightness": {"factor": 1.0, **RANGE},
        "RandomColorDegeneration": {"factor": 1.0, **RANGE},
        "RandomColorJitter": {"brightness_factor": 1.0, "hue_factor": 1.0, **RANGE},
        "RandomContrast": {"factor": 1.0, **RANGE},
        "RandomCrop": {"height": 8, "width": 6},
        "RandomElasticTransform": {"factor": 1.0, "scale": 1.0, **RANGE},
        "RandomErasing": {"factor": 1.0, **RANGE},
        "RandomFlip": {},
        "RandomGaussianBlur": {"factor": 1.0, **RANGE},
        "RandomGrayscale": {"factor": 1.0},
        "RandomHue": {"factor": 1.0, **RANGE},
        "RandomInvert": {"factor": 1.0, **RANGE},
        "RandomPerspective": {"factor": 1.0, "scale": 0.9},
        "RandomPosterization": {"factor": 1, **RANGE},
        "RandomRotation": {"factor": 1.0},
        "RandomSaturation": {"factor": 1.0, **RANGE},
        "RandomSharpness": {"factor": 1.0, **RANGE},
        "RandomShear": {"x_factor": 0.9, "y_factor": 0.9},
        "RandomTranslation": {"height_factor": 0.9, "width_factor": 0.9},
        "RandomZoom": {"height_factor": 0.9},
        "Solarization": {"addition_factor": 1.0, "threshold_factor": 1.0, **RANGE},
    }.items()
    if hasattr(layers, name)
}
