"""Providers of models: adapters on their SDKs, and the relay for clients that speak their dialect."""
