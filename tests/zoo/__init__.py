"""The models that several tests build, and what they are built and compared with."""
