"""The ways to compute one materialised node from those it reads, one file each."""
