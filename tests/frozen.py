"""Imported last by the process that others are forked from: what it has loaded is not looked through for garbage in each."""

import gc

gc.collect()
gc.freeze()
