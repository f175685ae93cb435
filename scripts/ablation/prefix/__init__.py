"""What a frozen part of a network makes of its inputs, computed once for all runs that share it."""
