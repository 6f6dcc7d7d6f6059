"""What every task states and promises."""
