"""Kind `low_rank`: as `perforated`, with dendrites that share one feature of the input (rank 1).

Formula: L_d(x) = U_d K_d(x), K_d a layer of M's form with 1 output channel (kernel, stride, padding, dilation of M, no bias),
U_d a bias and one weight for each neuron.

Cost of a set on a convolution of C_in x k to C channels: C_in * k + 2 * C + C * d parameters (d earlier sets) instead of
(C_in * k + 1) * C; MACs likewise. Depthwise and grouped layers keep their own form: they are narrow already.

When it helps: where a whole set is too dear, and the errors of the neurons have one cause in common.

Source: low-rank factorisation (Denil et al. 2013, Sainath et al. 2013) of the dendrite; the combination is ours.
"""

from dendrite_automl.dendrites.kind import Kind

KIND = Kind(name="low_rank", perforated=True, rank=1)
