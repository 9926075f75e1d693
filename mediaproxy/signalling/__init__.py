"""The signalling process: SIP sockets around the sans-IO B2BUA, and the calls' media, modes and captures."""
