"""Google's generateContent and embeddings: translated on the stock SDK, or relayed."""
