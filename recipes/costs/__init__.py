"""What a frozen upstream costs: parameters, multiply-accumulates, time and memory."""
