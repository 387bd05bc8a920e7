"""From an artifact to C99 for bare metal: read the graph, lower it to steps, plan the arena, write the code."""
