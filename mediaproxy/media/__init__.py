"""The media worker: RTP in, masked RTP out."""
