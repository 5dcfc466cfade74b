"""What the user names, made into one of the nouns: a candidate, a case, a target."""
