"""Kind `gradient`: a dendrite of the layer's own form; everything learns jointly by back-propagation.

Formula: y = M(x) + sum_d w_d * f(L_d(x) + sum_{e<d} v_{d,e} a_e), with M, L, v and w all trained on the loss.

Cost of D sets: D * params(M) + C * D * (D + 1) / 2 parameters, D * macs(M) and as many MACs for the scalars at each
position. Training costs what a layer of that size costs.

When it helps: it is the control for all other kinds. It is a gated wider layer without a wider output, so that the layers
after it stay as they are.

Source: the form of the open package `perforatedai` (Apache-2.0), which has no correlation phase; independent code.
"""

from dendrite_automl.dendrites.kind import Kind

KIND = Kind(name="gradient", perforated=False)
