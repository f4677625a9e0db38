"""pfnmap plugin: KVM, as far as guests reach memory that is a pfnmap."""

from .kvm import Kvm
from .recording import KvmRecordings

__all__ = ["Kvm", "KvmRecordings"]
