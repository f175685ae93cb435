"""Several GPUs: the trace of one process, edited into that of a rank."""
