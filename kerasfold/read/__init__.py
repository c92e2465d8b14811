"""Keras model -> calls. The only room, with backend.py, that touches Keras internals."""
