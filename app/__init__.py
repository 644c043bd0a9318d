"""video-gateway: one OpenAI-shaped API in front of every video vendor."""
