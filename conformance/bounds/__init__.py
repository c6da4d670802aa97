"""How far a right result may be off: bounds from rounding-error analysis, block by block."""
