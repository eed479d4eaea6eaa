"""Chat completions, Responses and embeddings of OpenAI and the servers compatible with it."""
