"""Lift rules for layers of kimm and keras-hub, where these are installed.

kerasfold fold model.keras --import zoo_rules
"""

from importlib.util import find_spec

import kerasfold

if find_spec("kimm"):
    import kimm

    @kerasfold.lifts(kimm.layers.LayerScale)
    def kimm_layer_scale(layer, x):
        """Give the input times gamma, along the channels."""
        if [axis % (x.rank + 2) for axis in layer.axis] != [x.channel_axis]:
            raise kerasfold.Refused("it scales other axes than the channels")
        return x.scale(layer.gamma)

    @kerasfold.lifts(kimm.layers.LearnableAffine)
    def kimm_learnable_affine(layer, x):
        """Give scale x + bias, one number each."""
        return x.scale(layer.scale, layer.bias)


if find_spec("keras_hub"):
    from keras_hub.src.models.hgnetv2.hgnetv2_layers import HGNetV2LearnableAffineBlock
    from keras_hub.src.models.mit.mit_layers import DropPath as MiTDropPath

    @kerasfold.lifts(HGNetV2LearnableAffineBlock)
    def hub_learnable_affine(layer, x):
        """Give scale x + bias, one number each."""
        return x.scale(layer.scale, layer.bias)

    @kerasfold.lifts(MiTDropPath)
    def hub_drop_path(layer, x):
        """Give the input."""
        return x
