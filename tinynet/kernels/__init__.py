"""How an op is made fast; changes speed, never meaning. Reached through tinynet.functional alone."""
