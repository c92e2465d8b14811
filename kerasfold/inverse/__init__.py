"""Convolutions taken apart: one factor by the other, or both by a form to be found."""
