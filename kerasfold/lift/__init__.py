"""Graph -> affine program: one rule a layer."""
