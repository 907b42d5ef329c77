"""NPC Runtime: characters whose memory is the fixed-size state of a small Mamba model."""

__version__ = "0.1.0"
