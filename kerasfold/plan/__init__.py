"""Which tensors of an affine program to materialise, and how."""
