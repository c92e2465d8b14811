"""The laws of the affine operators: an oracle, and random cases to hold against it."""
