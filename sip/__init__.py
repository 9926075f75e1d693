"""SIP without input or output: bytes in, events out; no sockets, no asyncio, no clock, no randomness of its own."""
