"""pfnmap's command `tables`: the page tables that a kernel really has for vfio mappings."""
