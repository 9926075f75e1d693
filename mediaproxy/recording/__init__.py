"""The recording process: what the agent heard and said, in stereo, with a signed manifest each and a journal of all."""
