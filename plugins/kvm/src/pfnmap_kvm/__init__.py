"""pfnmap plugin: KVM, as far as guests reach memory that is a pfnmap."""

from .kvm import Kvm

__all__ = ["Kvm"]
