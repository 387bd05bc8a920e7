"""From an artifact to C99 for bare metal: a graph is read, lowered to steps, given an arena, and written."""
