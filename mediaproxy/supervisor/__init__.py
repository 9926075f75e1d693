"""The parent process: starts, watches and restarts the others, holds the sockets, parses nothing from outside."""
