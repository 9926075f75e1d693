"""The parent process: starts, watches and restarts the others, and holds the sockets. It parses nothing from outside."""
