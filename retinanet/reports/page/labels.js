// Suspect labels, and the decisions on them.
