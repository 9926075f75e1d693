"""The recording process: what the agent heard and said, as stereo WAV with a manifest."""
