"""Pictures: the graph before and after a fold, and a linear part as the one kernel that it is."""
