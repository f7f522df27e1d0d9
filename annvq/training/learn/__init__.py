"""Learning from arrays: codebooks, rotations, norm terms. Nothing here knows of quantizers."""
