"""pfnmap plugins: where virtual-machine monitors and user-space drivers map PCI BARs, a module a program."""
