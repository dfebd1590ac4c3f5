"""Published scores and models: one archive file each, checked before anything is put in place."""
