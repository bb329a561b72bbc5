"""Where followers write: history, ledger, cache, dead letters. One class obeys one protocol."""
