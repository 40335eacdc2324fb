"""Fast exact routes that the engine takes where a bound proves them equal to the golden models."""
