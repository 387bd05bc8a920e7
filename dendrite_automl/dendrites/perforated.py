"""Kind `perforated`: dendrites learn to correlate with their own neuron's error, are frozen, and pass no error back.

Formula: in the dendrite phase L_d and v_{d,e} climb |corr(a_d, e)|, e = dL/dy of the own neuron over examples and positions;
in the neuron phase they stay as they are, and M and w learn, with the gradient of the loss through M alone.

Cost of D sets: D * params(M) + C * D * (D + 1) / 2 parameters, D * macs(M) and the scalars. The dendrite phase runs on cached
inputs and errors; a step of the neuron phase costs the forward pass of the dendrites, and no backward pass through them.

When it helps: after the network has stopped improving and before it has fitted the training set: of a fully fitted network
little error is left to correlate with.

Source: Brenner & Itti, Perforated Backpropagation (arXiv 2501.18018); Fahlman & Lebiere 1989.
"""

from dendrite_automl.dendrites.kind import Kind

KIND = Kind(name="perforated", perforated=True)
