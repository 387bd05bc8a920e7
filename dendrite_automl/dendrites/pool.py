"""Kind `pool`: as `perforated`, with four candidates for each neuron's dendrite; the one that correlates best stays.

Formula: candidates start from different random weights and climb the same correlation; for each neuron on its own
argmax_p |corr(a_p, e)| is kept.

Cost: as `perforated` in the network; four times the dendrite phase, which is cheap because it runs on cached inputs.

When it helps: where the climb ends in poor local maxima, which is what pools of candidates are for.

Source: Fahlman & Lebiere 1989, section 3 (a pool of candidate units, the best one is installed).
"""

from dendrite_automl.dendrites.kind import Kind

KIND = Kind(name="pool", perforated=True, pool=4)
