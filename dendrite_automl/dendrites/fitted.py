"""Kind `fitted`: as `perforated`, with gains that start at the least-squares answer to the error instead of 0.

Formula: w = -eta * cov(a, e) / var(a) for each neuron, the least-squares fit of the error by the dendrite's output; eta is
the step among 0 and a geometric row that gives the least loss over the training set, so that the loss never rises.

Cost: as `perforated`, and some passes over the training set after the dendrite phase.

When it helps: where the neuron phase is short: the gains need not find their way from 0.

Source: the output weights of Cascade-Correlation are a least-squares problem once the candidate is frozen (Fahlman &
Lebiere 1989, section 2); the step along it is ours, for the error here is a gradient and no residual.
"""

from dendrite_automl.dendrites.kind import Kind

KIND = Kind(name="fitted", perforated=True, fit_gains=True)
