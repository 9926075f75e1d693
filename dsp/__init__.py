"""Signal processing of Flattone: numpy in, numpy out; no I/O, no clock, no logging."""
