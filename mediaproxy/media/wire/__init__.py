"""RTP, RTCP and telephone-events as octets; no sockets, no clock."""
