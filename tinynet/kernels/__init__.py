"""How an op, a sum or an optimiser's step is made fast; changes speed, never meaning, which stands in the page that calls it."""
