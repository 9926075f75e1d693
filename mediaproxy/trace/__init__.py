"""`flattone trace`: one call's SIP messages, live, and as text or pcap."""
