"""An audio artifact as a detector on long recordings: windows, moving average, threshold, refractory time, and its errors."""
