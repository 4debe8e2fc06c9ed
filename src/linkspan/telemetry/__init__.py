"""What Linkspan tells about itself: spans and structured logs."""
