"""What /proc/cpuinfo tells of the boot, in the form of arch/x86/kernel/cpu/proc.c."""

from pfnmap_x86_64 import X86_64


def test_flags_and_address_sizes_are_the_boot_s_state():
    flags = "fpu de pse nx pdpe1gb pti la57 ospke user_shstk"
    told = X86_64.cpu_of({"flags": flags, "address sizes": "52 bits physical, 57 bits virtual"})
    assert told == {"la57": True, "pdpe1gb": True, "pti": True, "nx": True, "pku": True, "shadow_stack": True} | {
        "phys_bits": 52
    }
    assert set(told) <= set(X86_64.cpu_defaults)


def test_missing_flag_is_a_feature_that_is_off():
    assert X86_64.cpu_of({"flags": "fpu"})["pdpe1gb"] is False


def test_lines_without_flags_tell_nothing():
    assert X86_64.cpu_of({}) == {}
    assert X86_64.cpu_of({"address sizes": "?"}) == {}
