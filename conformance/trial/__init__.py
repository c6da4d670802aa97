"""One check against one subject, and what is kept of it."""
