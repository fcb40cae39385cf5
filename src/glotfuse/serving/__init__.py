"""An HTTP server of a fused model: OpenAI's routes and label scoring, over engines behind one interface."""
