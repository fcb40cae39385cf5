"""Load on `glotfuse serve`: Locust sends the requests; here the server is started and what was found put together."""
