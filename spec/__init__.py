"""The pages of the specification: one Markdown file per block, read by `nnspec.conformance.requirements`."""
