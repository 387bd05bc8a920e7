"""Kind `subset`: as `perforated`, but only half of the neurons keep their dendrite, those that gain most from it.

Formula: after the dendrite phase neurons are ranked by cov(a, e)^2 / var(a), the part of the error's energy that the
dendrite explains; all dendrites of a layer cost the same, so this is the gain per parameter. The others are dropped.

Cost of a set: half of what `perforated` costs, rounded up to whole neurons. Grouped layers that are not depthwise keep all.

When it helps: where few neurons hold most of the error, as in the last layer with one hard class.

Source: the selection of Cascade-Correlation (Fahlman & Lebiere 1989), applied to neurons; the ranking is ours.
"""

from dendrite_automl.dendrites.kind import Kind

KIND = Kind(name="subset", perforated=True, share=0.5)
