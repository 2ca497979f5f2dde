"""Reading what a run wrote: regular files of a bounded size, typed records, seals, archives."""
