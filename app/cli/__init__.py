"""The `video-gateway` command: server, worker, migrations, administration, and a small client."""
