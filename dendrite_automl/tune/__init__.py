"""Our parts that are plugged into Ray Tune: a searcher and a trainable."""
