"""Other decoders of keys, each behind `decode(int16[n]) -> str`, measured in the same run as ours."""
