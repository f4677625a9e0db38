// SPDX-License-Identifier: Apache-2.0
/*
 * A virtual machine of one CPU that touches guest physical addresses: the ops kvm.* of a scenario.
 *
 * It runs in long mode on 64K of RAM at guest physical 0 (slot 0), whose page tables map each 1G block that is asked
 * for by a 1G page of its own. How many leaves KVM's second stage holds is told by KVM's own statistics, less what the
 * RAM takes; where its tables begin, by a probe.
 */
#define _GNU_SOURCE
#include "guest.h"

#ifdef __x86_64__

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_SLOT 0
#define PML4 0x1000
#define PDPT 0x2000
#define READ_LOOP 0x4000
#define WRITE_LOOP 0x4100
#define BLOCK_SHIFT 30
#define PRESENT_WRITABLE 3
#define LARGE 0x80
#define MAX_CPUID 256
#define MAX_SLOTS 64

/* mov al,[rbx] or mov [rbx],al; add rbx,rcx; dec rdx; jnz to the start; hlt */
static const unsigned char read_loop[] = { 0x8a, 0x03, 0x48, 0x01, 0xcb, 0x48, 0xff, 0xca, 0x75, 0xf6, 0xf4 };
static const unsigned char write_loop[] = { 0x88, 0x03, 0x48, 0x01, 0xcb, 0x48, 0xff, 0xca, 0x75, 0xf6, 0xf4 };

struct leaves {
	long huge_1g, huge_2m, small;
};

static int vm = -1, vcpu = -1;
static char ram[GUEST_RAM_BYTES] __attribute__((aligned(4096)));
static struct kvm_run *state;
static struct leaves of_ram;
static struct { unsigned int slot; unsigned long long pages; } slots[MAX_SLOTS];
static int n_slots;
static unsigned long long blocks[512];
static int n_blocks = 1; /* the first maps the RAM */

static long statistic(const char *name)
{
	char path[64], text[32] = "";
	snprintf(path, sizeof path, "/sys/kernel/debug/kvm/%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = read(fd, text, sizeof text - 1);
	close(fd);
	return got > 0 ? strtol(text, NULL, 10) : 0;
}

static struct leaves count_leaves(void)
{
	return (struct leaves){ statistic("pages_1g"), statistic("pages_2m"), statistic("pages_4k") };
}

/* Runs a loop from a virtual address of the guest; 0, or -1 with errno. state->exit_reason says what ended it. */
static int run_loop(unsigned long long entry, unsigned long long va, unsigned long long step, unsigned long long times)
{
	struct kvm_regs registers = { .rip = entry, .rbx = va, .rcx = step, .rdx = times, .rflags = 2 };
	if (ioctl(vcpu, KVM_SET_REGS, &registers))
		return -1;
	return ioctl(vcpu, KVM_RUN, 0);
}

/* The RAM's own leaves are there again after this, whatever dropped them. */
static void touch_ram(void)
{
	run_loop(READ_LOOP, 0, 0, 1);
}

static int set_up_cpu(int kvm)
{
	static char space[sizeof(struct kvm_cpuid2) + MAX_CPUID * sizeof(struct kvm_cpuid_entry2)] __attribute__((aligned(8)));
	struct kvm_cpuid2 *cpuid = (struct kvm_cpuid2 *)space;
	struct kvm_sregs sregs;
	struct kvm_segment flat = { .limit = ~0u, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1 };
	cpuid->nent = MAX_CPUID;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) || ioctl(vcpu, KVM_SET_CPUID2, cpuid) ||
	    ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return -1;
	sregs.cr0 = 0x80050033; /* PG, AM, WP, NE, ET, MP, PE */
	sregs.cr4 = 0x20; /* PAE */
	sregs.cr3 = PML4;
	sregs.efer = 0x500; /* LMA, LME */
	sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = flat;
	sregs.cs = flat;
	sregs.cs.selector = 8;
	sregs.cs.type = 11;
	sregs.cs.db = 0;
	sregs.cs.l = 1;
	return ioctl(vcpu, KVM_SET_SREGS, &sregs);
}

static int make_vm(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0 || (vm = ioctl(kvm, KVM_CREATE_VM, 0)) < 0)
		return -1;
	memcpy(ram + READ_LOOP, read_loop, sizeof read_loop);
	memcpy(ram + WRITE_LOOP, write_loop, sizeof write_loop);
	*(uint64_t *)(ram + PML4) = PDPT | PRESENT_WRITABLE;
	*(uint64_t *)(ram + PDPT) = PRESENT_WRITABLE | LARGE;
	struct kvm_userspace_memory_region region = {
		.slot = RAM_SLOT, .memory_size = GUEST_RAM_BYTES, .userspace_addr = (uintptr_t)ram,
	};
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) || (vcpu = ioctl(vm, KVM_CREATE_VCPU, 0)) < 0)
		return -1;
	state = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (state == MAP_FAILED || set_up_cpu(kvm))
		return -1;
	close(kvm);
	touch_ram();
	of_ram = count_leaves();
	return 0;
}

/* The RAM is touched before, so that no step adds tables for it. */
void touch_guest_ram(void)
{
	for (size_t i = 0; i < sizeof ram; i += 4096)
		((volatile char *)ram)[i] = ram[i];
}

void do_vm_create(void)
{
	say_errno(make_vm());
}

/* Says what the second stage is after a step; another process than the one that made the machine cannot run it. */
void say_second_stage(void)
{
	if (vm < 0)
		return;
	touch_ram();
	drain();
	struct leaves now = count_leaves();
	say("leaves %ld %ld %ld", now.huge_1g - of_ram.huge_1g, now.huge_2m - of_ram.huge_2m, now.small - of_ram.small);
	say("root 0x%llx", seen.root);
}

static void remember_slot(unsigned int slot, unsigned long long pages)
{
	int i;
	for (i = 0; i < n_slots && slots[i].slot != slot; i++)
		;
	if (i == MAX_SLOTS)
		return;
	n_slots = i == n_slots ? n_slots + 1 : n_slots;
	slots[i].slot = slot;
	slots[i].pages = pages;
}

void do_kvm_memslot(void)
{
	struct kvm_userspace_memory_region region = { .slot = number_of("slot"), .guest_phys_addr = number_of("gpa") };
	region.memory_size = number_of("length");
	region.userspace_addr = number_of("va");
	region.flags |= !strcmp(text_of("log"), "true") ? KVM_MEM_LOG_DIRTY_PAGES : 0;
	region.flags |= !strcmp(text_of("readonly"), "true") ? KVM_MEM_READONLY : 0;
	int failed = ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
	say_errno(failed);
	if (!failed)
		remember_slot(region.slot, region.memory_size / 4096);
}

/* Says how many pages of a slot are dirty, and which is the first. */
void do_kvm_dirty_log(void)
{
	struct kvm_dirty_log log = { .slot = number_of("slot") };
	unsigned long long pages = 0, dirty = 0, first = 0;
	for (int i = 0; i < n_slots; i++)
		if (slots[i].slot == log.slot)
			pages = slots[i].pages;
	uint64_t *bitmap = calloc(pages / 64 + 1, sizeof *bitmap);
	log.dirty_bitmap = bitmap;
	int failed = !bitmap || ioctl(vm, KVM_GET_DIRTY_LOG, &log);
	say_errno(failed ? -1 : 0);
	for (unsigned long long page = 0; !failed && page < pages; page++)
		if (bitmap[page / 64] >> page % 64 & 1 && !dirty++)
			first = page;
	free(bitmap);
	if (!failed)
		say("dirty %llu %llu", dirty, first);
}

static void say_parameter(const char *what, const char *path)
{
	char text[16] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = read(fd, text, sizeof text - 1);
	close(fd);
	if (got > 0)
		say("%s %.*s", what, (int)strcspn(text, "\n"), text);
}

/* Writes a parameter of the module, and says how it read before and reads now. */
void do_kvm_param(void)
{
	char path[96];
	snprintf(path, sizeof path, "/sys/module/kvm/parameters/%.32s", text_of("name"));
	say_parameter("was", path);
	say_errno(write_file(path, text_of("value")));
	say_parameter("now", path);
}

/* The virtual address at which the guest sees a guest physical address; 0 where no entry is left for its block. */
static unsigned long long guest_address(unsigned long long gpa)
{
	unsigned long long block = gpa >> BLOCK_SHIFT;
	int i;
	for (i = 1; i < n_blocks && blocks[i] != block; i++)
		;
	if (i == 512)
		return 0;
	if (i == n_blocks) {
		blocks[n_blocks++] = block;
		((uint64_t *)(ram + PDPT))[i] = block << BLOCK_SHIFT | PRESENT_WRITABLE | LARGE;
	}
	return (unsigned long long)i << BLOCK_SHIFT | (gpa & ((1ull << BLOCK_SHIFT) - 1));
}

void do_kvm_map(void)
{
	unsigned long long gpa = number_of("gpa"), end = gpa + number_of("length"), step = number_of("step");
	unsigned long long entry = !strcmp(text_of("access"), "write") ? WRITE_LOOP : READ_LOOP;
	while (gpa < end) {
		unsigned long long block_end = ((gpa >> BLOCK_SHIFT) + 1) << BLOCK_SHIFT;
		unsigned long long to = end < block_end ? end : block_end;
		unsigned long long va = guest_address(gpa), times = (to - gpa + step - 1) / step;
		if (vm < 0 || !va) {
			say("unknown guest address 0x%llx", gpa);
			return;
		}
		if (run_loop(entry, va, step, times) || state->exit_reason != KVM_EXIT_HLT)
			break;
		gpa += times * step;
	}
	if (gpa >= end) {
		say("result ok");
	} else if (state->exit_reason == KVM_EXIT_MMIO) {
		say("result word=MMIO");
		say("mmio 0x%llx %d %u", (unsigned long long)state->mmio.phys_addr, state->mmio.is_write, state->mmio.len);
		state->immediate_exit = 1; /* lets KVM finish the access */
		ioctl(vcpu, KVM_RUN, 0);
		state->immediate_exit = 0;
	} else {
		struct kvm_regs registers;
		say_errno(-1);
		ioctl(vcpu, KVM_GET_REGS, &registers);
		unsigned long long block = blocks[registers.rbx >> BLOCK_SHIFT & 511];
		say("rdi 0x%llx", (block << BLOCK_SHIFT) + (registers.rbx & ((1ull << BLOCK_SHIFT) - 1)));
	}
}

#else

static void without_kvm(void)
{
	say("unknown kvm on this architecture");
}

void say_second_stage(void)
{
}

void touch_guest_ram(void)
{
}

void do_vm_create(void)
{
	without_kvm();
}

void do_kvm_memslot(void)
{
	without_kvm();
}

void do_kvm_map(void)
{
	without_kvm();
}

void do_kvm_dirty_log(void)
{
	without_kvm();
}

void do_kvm_param(void)
{
	without_kvm();
}

#endif
