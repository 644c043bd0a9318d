"""Webhooks out: endpoints, events, deliveries."""
