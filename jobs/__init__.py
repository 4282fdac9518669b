"""Evidence is folded: the arq worker, the drain (claim, fold, save, commit, publish) and the sweep."""
