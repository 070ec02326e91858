"""Read token counts from responses, price them, and bound those of requests. No decision of the engine uses it."""
