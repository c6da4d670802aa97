"""The report of a run: verdicts, findings, causes, pictures, scripts, tables and files."""
