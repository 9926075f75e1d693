"""`flattone demo`: two real calls on this machine, and what can be recovered from them."""
