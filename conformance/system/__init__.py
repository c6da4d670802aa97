"""What the operating system is asked for: processes, signals, folders, streams and the log."""
