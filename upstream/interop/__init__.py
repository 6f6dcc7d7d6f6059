"""Other people's weights and models. The only place that knows their key names and formats."""
