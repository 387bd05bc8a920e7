"""The shipped `keywords` data set (`keywords.npz`, described in `CARD.md`) and the generator that made it."""
