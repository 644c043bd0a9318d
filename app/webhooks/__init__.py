"""Webhooks: registered endpoints, events, signatures and deliveries."""
