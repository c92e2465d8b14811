"""The models of other people that `zoos.py` runs, by the package that has them.

Each is built small, and in several ways where its family has several. None of the packages is
required: an entry is made where its zoo can be imported.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

SIZE = 64  # image side
IMAGE = (SIZE, SIZE, 3)
VOLUME = (32, 32, 32, 1)
Build = Callable[[], keras.Model]
Named = Iterator[tuple[str, Build]]


class Zoo(NamedTuple):
    """A package, and a function that gives its models by name."""

    module: str
    models: Callable[[Any], Named]


def applications(zoo: Any) -> Named:
    """One of each family, with its top."""
    names = (
        "ConvNeXtTiny",
        "DenseNet121",
        "EfficientNetB0",
        "EfficientNetV2B0",
        "InceptionResNetV2",
        "InceptionV3",
        "MobileNet",
        "MobileNetV2",
        "MobileNetV3Small",
        "NASNetMobile",
        "ResNet101",
        "ResNet50V2",
        "VGG16",
        "Xception",
    )
    for name in names:
        side = 96 if "Inception" in name or name == "Xception" else SIZE
        yield (
            name,
            functools.partial(getattr(zoo, name), weights=None, input_shape=(side, side, 3)),
        )


def keras_hub(zoo: Any) -> Named:
    """The backbones that hold convolutions, the tasks on them, and what is built of them."""
    models = zoo.models

    def backbone(family: str, **settings: Any) -> Any:
        return getattr(models, f"{family}Backbone")(image_shape=IMAGE, **settings)

    def resnet(block: str = "basic_block", **settings: Any) -> Any:
        widths = [64, 64, 64, 64]  # Keras-hub asks for 64 first
        given = {
            "input_conv_filters": [64],
            "input_conv_kernel_sizes": [7],
            "stackwise_num_filters": widths,
            "stackwise_num_blocks": [1, 2, 1, 1],
            "stackwise_num_strides": [1, 2, 2, 2],
            "block_type": block,
        }
        return backbone("ResNet", **given | settings)

    def hgnet(light: bool = False, affine: bool = False) -> Any:
        stages = [[16, 8, 32, 1, 2, 3], [32, 16, 64, 2, 2, 5 if light else 3]]
        return backbone(
            "HGNetV2",
            depths=[stage[3] for stage in stages],
            embedding_size=16,
            hidden_sizes=[stage[2] for stage in stages],
            stem_channels=[3, 8, 16],
            hidden_act="relu",
            use_learnable_affine_block=affine,
            stackwise_stage_filters=stages,
            apply_downsample=[False, True],
            use_lightweight_conv_block=[light, light],
        )

    def mobilenet() -> Any:
        return backbone(
            "MobileNet",
            stackwise_expansion=[[16, 24], [48, 64]],
            stackwise_num_blocks=[2, 2],
            stackwise_num_filters=[[16, 16], [24, 24]],
            stackwise_kernel_size=[[3, 3], [5, 5]],
            stackwise_num_strides=[[2, 1], [2, 1]],
            stackwise_se_ratio=[[None, None], [0.25, 0.25]],
            stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
            stackwise_padding=[[1, 1], [2, 2]],
            output_num_filters=64,
            depthwise_filters=8,
            depthwise_stride=2,
            depthwise_residual=False,
            last_layer_filter=64,
            squeeze_and_excite=0.5,
        )

    def efficientnet() -> Any:
        return models.EfficientNetBackbone(
            stackwise_kernel_sizes=[3, 3, 5],
            stackwise_num_repeats=[1, 2, 2],
            stackwise_input_filters=[16, 16, 24],
            stackwise_output_filters=[16, 24, 40],
            stackwise_expansion_ratios=[1, 4, 6],
            stackwise_squeeze_and_excite_ratios=[0, 0, 0.25],
            stackwise_strides=[1, 2, 2],
            stackwise_block_types=["v1", "fused", "unfused"],
            stackwise_force_input_filters=[0] * 3,
            stackwise_nores_option=[False] * 3,
            stackwise_width_coefficients=[1.0] * 3,
            stackwise_depth_coefficients=[1.0] * 3,
            input_shape=IMAGE,
        )

    def cspnet(block: str, stage: str) -> Any:
        return backbone(
            "CSPNet",
            stem_filters=16,
            stem_kernel_size=3,
            stem_strides=1,
            stackwise_depth=[1, 2],
            stackwise_strides=2,
            stackwise_num_filters=[16, 32],
            block_type=block,
            stage_type=stage,
            stem_padding="same",
            down_growth=True,
            bottle_ratio=(0.5, 1.0),
            block_ratio=(1.0, 0.5),
            expand_ratio=(2.0, 1.0),
        )

    def deeplab() -> Any:
        return backbone(
            "DeepLabV3",
            image_encoder=resnet(),
            spatial_pyramid_pooling_key="P4",
            low_level_feature_key="P2",
            upsampling_size=4,
            dilation_rates=[1, 2, 3],
        )

    def retinanet(norm: bool = True) -> Any:
        return backbone(
            "RetinaNet",
            image_encoder=resnet("bottleneck_block"),
            min_level=3,
            max_level=6,
            use_p5=True,
            use_fpn_batch_norm=norm,
        )

    yield "HGNetV2", hgnet
    yield "HGNetV2-light-affine", lambda: hgnet(light=True, affine=True)
    yield (
        "HGNetV2ImageClassifier",
        lambda: models.HGNetV2ImageClassifier(
            backbone=hgnet(), preprocessor=None, num_classes=5, head_filters=16
        ),
    )
    yield "MobileNet", mobilenet
    yield (
        "MobileNetImageClassifier",
        lambda: models.MobileNetImageClassifier(backbone=mobilenet(), num_classes=5),
    )
    yield "EfficientNet", efficientnet
    yield "DenseNet", lambda: backbone("DenseNet", stackwise_num_repeats=[2, 3], growth_rate=8)
    yield "CSPNet-dark", lambda: cspnet("dark_block", "csp")
    yield "CSPNet-bottleneck", lambda: cspnet("bottleneck_block", "cs3")
    yield "ResNet", resnet
    yield "ResNetV2", lambda: resnet("bottleneck_block", use_pre_activation=True)
    yield (
        "ResNet-vd",
        lambda: resnet(
            "bottleneck_block_vd", input_conv_filters=[8, 8, 16], input_conv_kernel_sizes=[3, 3, 3]
        ),
    )
    yield (
        "ResNetImageClassifier",
        lambda: models.ResNetImageClassifier(backbone=resnet(), num_classes=5),
    )
    yield (
        "Xception",
        lambda: backbone(
            "Xception", stackwise_conv_filters=[[8, 16], [32, 32]], stackwise_pooling=[True, False]
        ),
    )
    yield (
        "VGG",
        lambda: backbone("VGG", stackwise_num_repeats=[1, 2], stackwise_num_filters=[8, 16]),
    )
    yield "DeepLabV3", deeplab
    yield (
        "DeepLabV3ImageSegmenter",
        lambda: models.DeepLabV3ImageSegmenter(backbone=deeplab(), num_classes=3),
    )
    yield "RetinaNet", retinanet
    yield (
        "RetinaNetObjectDetector",
        lambda: models.RetinaNetObjectDetector(
            backbone=retinanet(),
            num_classes=3,
            bounding_box_format="xyxy",
            use_prediction_head_norm=True,
        ),
    )
    yield (
        "BASNet",
        lambda: models.BASNetBackbone(
            image_encoder=resnet(), num_classes=1, image_shape=IMAGE, projection_filters=8
        ),
    )
    yield (
        "MiT",
        lambda: backbone(
            "MiT",
            layerwise_depths=[1, 1],
            num_layers=2,
            layerwise_num_heads=[1, 2],
            layerwise_sr_ratios=[4, 2],
            max_drop_path_rate=0.1,
            layerwise_patch_sizes=[7, 3],
            layerwise_strides=[4, 2],
            hidden_dims=[16, 32],
        ),
    )


def kimm(zoo: Any) -> Named:
    """The smallest of each family."""
    names = (
        "ConvMixer736D32",
        "ConvNeXtAtto",
        "DenseNet121",
        "EfficientNetLiteB0",
        "EfficientNetV2B0",
        "GhostNetW050",
        "GhostNetV2W100",
        "GhostNetV3W050",
        "HGNetTiny",
        "HGNetV2B0",
        "InceptionNeXtTiny",
        "LCNet035",
        "MobileNetV3W050Small",
        "MobileOneS0",
        "MobileOneS1",
        "MobileViTXXS",
        "MobileViTV2W050",
        "RegNetX002",
        "RegNetY002",
        "RepVGGA0",
        "ResNet18",
        "TinyNetE",
        "VisionTransformerTiny16",
        "Xception",
    )
    for name in names:
        yield (
            name,
            functools.partial(
                getattr(zoo.models, name), weights=None, input_shape=IMAGE, classes=5
            ),
        )


def keras_cv(zoo: Any) -> Named:
    """Backbones, and the tasks on them."""
    models = zoo.models

    def backbone(name: str) -> Build:
        kind = getattr(models, f"{name}Backbone")
        return functools.partial(kind, include_rescaling=True, input_shape=IMAGE)

    for name in (
        "CSPDarkNetTiny",
        "DenseNet121",
        "EfficientNetLiteB0",
        "EfficientNetV1B0",
        "EfficientNetV2B0",
        "MobileNetV3Small",
        "ResNet18",
        "ResNet18V2",
    ):
        yield name, backbone(name)
    yield "MiTB0", functools.partial(models.MiTB0Backbone, input_shape=IMAGE)
    yield (
        "ImageClassifier",
        lambda: models.ImageClassifier(backbone=backbone("ResNet18")(), num_classes=5),
    )
    yield (
        "DeepLabV3Plus",
        lambda: models.DeepLabV3Plus(backbone=backbone("ResNet18V2")(), num_classes=3),
    )
    yield (
        "YOLOV8Detector",
        lambda: models.YOLOV8Detector(
            backbone=models.YOLOV8Backbone(
                stackwise_channels=[8, 16, 32, 64],
                stackwise_depth=[1, 1, 1, 1],
                include_rescaling=True,
                input_shape=IMAGE,
            ),
            num_classes=3,
            bounding_box_format="xyxy",
        ),
    )
    yield (
        "RetinaNet",
        lambda: models.RetinaNet(
            backbone=backbone("ResNet18")(), num_classes=3, bounding_box_format="xyxy"
        ),
    )


def kecam(zoo: Any) -> Named:
    """Those that are made to be reparameterised, and one of other families."""
    names = (
        "repvit.RepViT_M09",
        "repvit.RepViT_M11",
        "fastvit.FastViT_T8",
        "mobilenetv3_family.MobileNetV3Small050",
        "resnet_family.ResNet51Q",
        "resnet_family.RegNetY040",
        "levit.LeViT128S",
        "efficientformer.EfficientFormerL1",
        "efficientnet.EfficientNetV2B0",
        "ghostnet.GhostNet_050",
        "vanillanet.VanillaNet5",
        "edgenext.EdgeNeXt_XX_Small",
        "fasternet.FasterNetT0",
        "cspnext.CSPNeXtTiny",
        "yolov8.YOLOV8_N",
        "yolox.YOLOXNano",
        "yolov7.YOLOV7_Tiny",
        "efficientdet.EfficientDetD0",
    )
    for name in names:
        module, _, kind = name.partition(".")
        yield (
            kind,
            functools.partial(
                getattr(getattr(zoo, module), kind),
                input_shape=IMAGE,
                num_classes=5,
                pretrained=None,
            ),
        )


def kyolo(zoo: Any) -> Named:
    """The smallest of each generation."""
    for name in ("yolov5n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"):
        yield name, functools.partial(getattr(zoo, name), nc=3, input_shape=IMAGE)


def medicai(zoo: Any) -> Named:
    """Classifiers, and segmenters on them, of images and of volumes."""
    models = zoo.models
    for name in (
        "ResNet18",
        "SEResNet50vd",
        "ResNeXt50",
        "DenseNet121",
        "EfficientNetB0",
        "EfficientNetV2B0",
        "ConvNeXtTiny",
        "Xception",
        "MixViTB0",
    ):
        yield name, functools.partial(getattr(models, name), input_shape=IMAGE, num_classes=3)
    yield "ResNet18-3D", functools.partial(models.ResNet18, input_shape=VOLUME, num_classes=3)
    for name in ("UNet", "UNetPlusPlus", "AttentionUNet", "DeepLabV3Plus", "UPerNet"):
        yield (
            name,
            functools.partial(
                getattr(models, name), input_shape=IMAGE, encoder_name="resnet18", num_classes=3
            ),
        )
    yield (
        "UNet-3D",
        functools.partial(models.UNet, input_shape=VOLUME, encoder_name="resnet18", num_classes=3),
    )
    yield (
        "SegFormer",
        functools.partial(
            models.SegFormer, input_shape=IMAGE, encoder_name="mit_b0", num_classes=3
        ),
    )


def keras_unet_collection(zoo: Any) -> Named:
    """U-Nets with BatchNormalization."""
    del zoo
    models = importlib.import_module("keras_unet_collection.models")
    widths = [8, 16, 32]
    yield "unet", lambda: models.unet_2d(IMAGE, widths, 3, batch_norm=True)
    yield (
        "unet-pool-bilinear",
        lambda: models.unet_2d(IMAGE, widths, 3, batch_norm=True, pool="ave", unpool="bilinear"),
    )
    yield (
        "unet-strides",
        lambda: models.unet_2d(IMAGE, widths, 3, batch_norm=True, pool=False, unpool=False),
    )
    yield "vnet", lambda: models.vnet_2d(IMAGE, widths, 3, batch_norm=True, pool=False)
    yield "unet-plus", lambda: models.unet_plus_2d(IMAGE, widths, 3, batch_norm=True)
    yield "unet-3plus", lambda: models.unet_3plus_2d(IMAGE, 3, widths, batch_norm=True)
    yield "r2-unet", lambda: models.r2_unet_2d(IMAGE, widths, 3, batch_norm=True)
    yield "att-unet", lambda: models.att_unet_2d(IMAGE, widths, 3, batch_norm=True)
    yield (
        "resunet-a",
        lambda: models.resunet_a_2d(IMAGE, [8, 16, 32], [1, 3], 3, aspp_num_down=16, aspp_num_up=8),
    )
    yield "u2net", lambda: models.u2net_2d(IMAGE, 3, [8, 16, 32], batch_norm=True)


def segmentation_models_3D(zoo: Any) -> Named:
    """U-Nets of volumes."""
    for name in ("Unet", "FPN", "Linknet"):
        yield (
            name,
            functools.partial(
                getattr(zoo, name), "resnet18", input_shape=(32, 32, 32, 3), encoder_weights=None
            ),
        )


ZOOS: dict[str, Zoo] = {
    "applications": Zoo("keras.applications", applications),
    "keras_hub": Zoo("keras_hub", keras_hub),
    "kimm": Zoo("kimm", kimm),
    "keras_cv": Zoo("keras_cv", keras_cv),
    "kecam": Zoo("keras_cv_attention_models", kecam),
    "kyolo": Zoo("kyolo", kyolo),
    "medicai": Zoo("medicai", medicai),
    "unets": Zoo("keras_unet_collection", keras_unet_collection),
    "unets-3D": Zoo("segmentation_models_3D", segmentation_models_3D),
}
