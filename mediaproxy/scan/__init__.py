"""The scanner: what of keys is left in recordings, where, and what becomes of them."""
