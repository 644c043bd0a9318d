"""Outgoing webhooks: endpoints, events and deliveries."""
