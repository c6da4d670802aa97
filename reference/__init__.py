"""The specification as readable NumPy: one file per block, nothing but NumPy imported."""
