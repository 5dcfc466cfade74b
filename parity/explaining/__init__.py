"""After the verdict: causes, blind spots, facts, weights in effect, the smallest case."""
