"""Kind `fitted`: as `perforated`, with gains that start at the least-squares answer to the error instead of 0.

Formula: w = -eta * cov(a, e) / var(a) for each neuron, the least-squares fit of the error by the dendrite's output; the
neuron's bias takes -w * mean(a), so that what is added has mean 0. A neuron whose bias is missing or does not learn takes the
fit without an intercept, w = -eta * sum(a e) / sum(a a). eta is 0 or the step of a geometric row that gives the least loss
over the training set, so that the loss never rises; with 0 everything stays as it was.

Cost: as `perforated`, and some passes over the training set after the dendrite phase. `drop_dendrites_` leaves the bias.

When it helps: where the neuron phase is short: the gains need not find their way from 0.

Source: the output weights of Cascade-Correlation are a least-squares problem once the candidate is frozen (Fahlman &
Lebiere 1989, section 2); the step along it is ours, for the error here is a gradient and no residual.
"""

from dendrite_automl.dendrites.kind import Kind

KIND = Kind(name="fitted", perforated=True, fit_gains=True)
