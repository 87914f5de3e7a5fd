"""Pretraining. The loop knows neither Ray nor Prefect: it runs under torchrun, Ray Train, or in one process alike."""
