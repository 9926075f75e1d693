"""The compiled mover: call for call what `mediaproxy.media.mover` does."""

from mediaproxy.media.mover import Mover as _Pure

class Mover(_Pure): ...
