"""From requests to paid replies: the store, the way to an endpoint, batches, budget and ledger."""
