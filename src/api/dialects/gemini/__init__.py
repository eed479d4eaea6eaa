"""Google's generateContent, countTokens, embeddings and models."""
