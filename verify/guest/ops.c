// SPDX-License-Identifier: Apache-2.0
/* The ops of a step: system calls, by the names that recordings use. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "guest.h"

#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#define MPOL_BIND 2
#define MPOL_MF_MOVE 2
#define MPOL_F_NODE 1
#define MPOL_F_ADDR 2

static void *address_of(const char *key)
{
	return (void *)(uintptr_t)number_of(key);
}

static int is(const char *key, const char *value)
{
	return !strcmp(text_of(key), value);
}

/* Mappings */

static void do_munmap(void)
{
	void *addr = address_of("addr");
	say_errno(munmap(addr, number_of("length")));
}

static void do_mprotect(void)
{
	int prot = 0;
	void *addr = address_of("addr");
	for (const char *c = text_of("prot"); *c && strcmp(text_of("prot"), "none"); c++)
		prot |= *c == 'r' ? PROT_READ : *c == 'w' ? PROT_WRITE : *c == 'x' ? PROT_EXEC : 0;
	say_errno(mprotect(addr, number_of("length"), prot));
}

static const struct { const char *name; int value; } advices[] = {
	{ "NORMAL", 0 }, { "RANDOM", 1 }, { "SEQUENTIAL", 2 }, { "WILLNEED", 3 }, { "DONTNEED", 4 }, { "FREE", 8 },
	{ "REMOVE", 9 }, { "DONTFORK", 10 }, { "DOFORK", 11 }, { "MERGEABLE", 12 }, { "UNMERGEABLE", 13 },
	{ "HUGEPAGE", 14 }, { "NOHUGEPAGE", 15 }, { "DONTDUMP", 16 }, { "DODUMP", 17 }, { "WIPEONFORK", 18 },
	{ "KEEPONFORK", 19 }, { "COLD", 20 }, { "PAGEOUT", 21 }, { "POPULATE_READ", 22 }, { "POPULATE_WRITE", 23 },
	{ "DONTNEED_LOCKED", 24 }, { "COLLAPSE", 25 }, { "HWPOISON", 100 }, { "SOFT_OFFLINE", 101 },
	{ "GUARD_INSTALL", 102 }, { "GUARD_REMOVE", 103 }, { NULL, 0 },
};

static void do_madvise(void)
{
	void *addr = address_of("addr");
	size_t length = number_of("length");
	for (int i = 0; advices[i].name; i++)
		if (is("advice", advices[i].name)) {
			say_errno(madvise(addr, length, advices[i].value));
			return;
		}
	say("unknown advice");
}

static void do_mremap(void)
{
	void *addr = address_of("addr"), *new_addr = address_of("new_addr");
	size_t old_len = number_of("old_len"), new_len = number_of("new_len");
	const char *names = text_of("flags");
	int flags = (strstr(names, "MAYMOVE") ? 1 : 0) | (strstr(names, "FIXED") ? 2 : 0) |
		    (strstr(names, "DONTUNMAP") ? 4 : 0);
	long moved = syscall(SYS_mremap, addr, old_len, new_len, flags, new_addr);
	int failed = (unsigned long)moved > -4096ul;
	say_errno(failed ? -1 : 0);
	if (failed)
		return;
	say("addr 0x%lx", moved);
	watch_range(moved, new_len);
}

static void do_mlock(void)
{
	void *addr = address_of("addr");
	say_errno(mlock(addr, number_of("length")));
}

static void do_munlock(void)
{
	void *addr = address_of("addr");
	say_errno(munlock(addr, number_of("length")));
}

static void do_mlockall(void)
{
	say_errno(mlockall(MCL_CURRENT));
}

static void do_munlockall(void)
{
	say_errno(munlockall());
}

static void do_msync(void)
{
	void *addr = address_of("addr");
	say_errno(msync(addr, number_of("length"), MS_SYNC));
}

static void do_mseal(void)
{
	unsigned long long addr = number_of("addr");
	say_errno(syscall(SYS_mseal, addr, number_of("length"), 0ul));
}

static void do_mbind(void)
{
	unsigned long nodes = 1;
	unsigned long long addr = number_of("addr"), length = number_of("length");
	say_errno(syscall(SYS_mbind, addr, length, MPOL_BIND, &nodes, 64ul, strstr(text_of("flags"), "MOVE") ? MPOL_MF_MOVE : 0));
}

static void do_move_pages(void)
{
	void *page = address_of("va");
	int node = number_of("node"), status = 0;
	long moved = syscall(SYS_move_pages, 0, 1ul, &page, is("node", "null") ? NULL : &node, &status, MPOL_MF_MOVE);
	say_errno(moved);
	say("status %d", status);
}

static void do_get_mempolicy(void)
{
	int mode;
	say_errno(syscall(SYS_get_mempolicy, &mode, NULL, 0ul, address_of("va"), MPOL_F_NODE | MPOL_F_ADDR));
}

static void do_userfaultfd_register(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register area = { .range = { .start = number_of("addr"), .len = number_of("length") } };
	area.mode = is("mode", "wp") ? UFFDIO_REGISTER_MODE_WP : UFFDIO_REGISTER_MODE_MISSING;
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	say_errno(fd < 0 || ioctl(fd, UFFDIO_API, &api) ? -1 : ioctl(fd, UFFDIO_REGISTER, &area));
	if (fd >= 0)
		close(fd);
}

/* Accesses by the kernel */

static pid_t target(void)
{
	return is("target", "child") ? child.pid : getpid();
}

static long by_proc_mem(void *va, size_t length, int is_write, char *buffer)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/mem", target());
	int fd = open(path, O_RDWR | O_CLOEXEC);
	long done = is_write ? pwrite(fd, buffer, length, (off_t)(uintptr_t)va) : pread(fd, buffer, length, (off_t)(uintptr_t)va);
	int error = errno;
	close(fd);
	errno = error;
	return done;
}

static long by_pipe(void *va, size_t length, const char *via, char *buffer)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC))
		return -1;
	struct iovec area = { va, length };
	long done;
	if (!strcmp(via, "read_syscall"))
		done = write(ends[1], buffer, length) < 0 ? -1 : read(ends[0], va, length);
	else if (!strcmp(via, "vmsplice"))
		done = vmsplice(ends[1], &area, 1, 0);
	else
		done = write(ends[1], va, length);
	int error = errno;
	close(ends[0]);
	close(ends[1]);
	errno = error;
	return done;
}

static long by_tmpfs(void *va, size_t length)
{
	int fd = open("/tmp/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	long done = write(fd, va, length);
	int error = errno;
	close(fd);
	errno = error;
	return done;
}

static void do_access(void)
{
	static char buffer[65536];
	void *va = address_of("va");
	size_t length = number_of("length") < sizeof buffer ? number_of("length") : sizeof buffer;
	struct iovec here = { buffer, length }, there = { va, length };
	char via[32];
	long done;
	snprintf(via, sizeof via, "%s", text_of("via"));
	if (!strcmp(via, "proc_mem_read") || !strcmp(via, "proc_mem_write")) {
		done = by_proc_mem(va, length, !strcmp(via, "proc_mem_write"), buffer);
	} else if (!strcmp(via, "process_vm_readv")) {
		done = process_vm_readv(target(), &here, 1, &there, 1, 0);
	} else if (!strcmp(via, "process_vm_writev")) {
		done = process_vm_writev(target(), &here, 1, &there, 1, 0);
	} else if (!strcmp(via, "futex_wake")) {
		done = syscall(SYS_futex, va, FUTEX_WAKE, 1, NULL, NULL, 0);
	} else if (!strcmp(via, "ptrace_peek")) {
		done = syscall(SYS_ptrace, PTRACE_PEEKDATA, child.pid, va, buffer);
	} else if (!strcmp(via, "ptrace_poke")) {
		done = syscall(SYS_ptrace, PTRACE_POKEDATA, child.pid, va, 0ul);
	} else if (!strcmp(via, "write_tmpfs")) {
		done = by_tmpfs(va, length);
	} else if (!strcmp(via, "write_syscall") || !strcmp(via, "read_syscall") || !strcmp(via, "vmsplice")) {
		done = by_pipe(va, length, via, buffer);
	} else {
		say("unknown via %s", via);
		return;
	}
	say_errno(done);
	say("ret %ld", done);
}

void be_traced(void)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
}

/* Files of /proc/self */

static void do_pagemap(void)
{
	uint64_t entries[512];
	unsigned long long va = number_of("va"), count = number_of("count");
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	long page = sysconf(_SC_PAGESIZE);
	ssize_t got = pread(fd, entries, (count < 512 ? count : 512) * 8, va / page * 8);
	say_errno(got);
	close(fd);
	say("bytes %zd", got);
	for (ssize_t i = 0; i < got / 8; i++)
		say("item 0x%llx", (unsigned long long)entries[i]);
}

static void do_pagemap_scan(void)
{
	struct page_region regions[64];
	struct pm_scan_arg scan = { .size = sizeof scan, .vec = (uintptr_t)regions, .vec_len = 64 };
	scan.start = number_of("start");
	scan.end = number_of("end");
	scan.category_anyof_mask = number_of("any_of");
	scan.return_mask = number_of("return_mask");
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	long found = ioctl(fd, PAGEMAP_SCAN, &scan);
	say_errno(found);
	close(fd);
	say("ret %ld", found);
	say("walk_end 0x%llx", (unsigned long long)scan.walk_end);
	for (long i = 0; i < found; i++)
		say("region 0x%llx 0x%llx 0x%llx", (unsigned long long)regions[i].start, (unsigned long long)regions[i].end,
		    (unsigned long long)regions[i].categories);
}

static void do_mincore(void)
{
	void *addr = address_of("addr");
	size_t pages = number_of("length") / sysconf(_SC_PAGESIZE), resident = 0;
	unsigned char *states = calloc(pages + 1, 1);
	long result = mincore(addr, number_of("length"), states);
	say_errno(result);
	for (size_t i = 0; i < pages && !result; i++) /* what an error leaves behind says nothing */
		resident += states[i] & 1;
	free(states);
	say("pages %zu", pages);
	say("resident %zu", resident);
}

static void do_clear_refs(void)
{
	say_errno(write_file("/proc/self/clear_refs", text_of("value")));
}

/* Says the lines of a file of /proc/self that are about the vma which starts at this address; all lines are read. */
static void say_vma_lines(const char *path, unsigned long long va)
{
	char line[1024];
	int wanted = 0;
	FILE *file = fopen(path, "re");
	say_errno(file ? 0 : -1);
	while (file && fgets(line, sizeof line, file)) {
		unsigned long long start, end;
		if (sscanf(line, "%llx-%llx", &start, &end) == 2)
			wanted = start == va;
		else if (strstr(path, "numa_maps"))
			wanted = strtoull(line, NULL, 16) == va;
		line[strcspn(line, "\n")] = 0;
		if (wanted)
			say("line %.900s", line);
	}
	if (file)
		fclose(file);
}

static void do_smaps(void)
{
	say_vma_lines("/proc/self/smaps", number_of("va"));
}

static void do_smaps_rollup(void)
{
	say_vma_lines("/proc/self/smaps_rollup", ~0ull);
}

static void do_numa_maps(void)
{
	say_vma_lines("/proc/self/numa_maps", number_of("va"));
}

static void do_vmas(void)
{
	char line[1024];
	unsigned long long start = number_of("start"), end = number_of("end"), from, to;
	FILE *file = fopen("/proc/self/maps", "re");
	while (file && fgets(line, sizeof line, file)) {
		line[strcspn(line, "\n")] = 0;
		if (sscanf(line, "%llx-%llx", &from, &to) == 2 && from < end && start < to)
			say("line %.900s", line);
	}
	say_errno(file ? 0 : -1);
	if (file)
		fclose(file);
}

/* Knobs */

static void do_prctl_thp_disable(void)
{
	say_errno(prctl(PR_SET_THP_DISABLE, is("disabled", "true"), 0, 0, 0));
}

static void do_set_thp_enabled(void)
{
	say_errno(write_file("/sys/kernel/mm/transparent_hugepage/enabled", text_of("value")));
}

/* Not put back: a boot that did this is done. */
static void do_set_thp_sizes(void)
{
	static const char *const others[] = { "defrag", "shmem_enabled" };
	char pattern[] = "/sys/kernel/mm/transparent_hugepage/hugepages-*/enabled", path[128];
	const char *value = text_of("value");
	int failed = 0;
	glob_t found;
	if (!glob(pattern, 0, NULL, &found)) {
		for (size_t i = 0; i < found.gl_pathc; i++)
			failed |= write_file(found.gl_pathv[i], value);
		globfree(&found);
	}
	for (int i = 0; i < 2 && !strcmp(value, "never"); i++) {
		snprintf(path, sizeof path, "/sys/kernel/mm/transparent_hugepage/%s", others[i]);
		failed |= write_file(path, value);
	}
	say_errno(failed ? -1 : 0);
}

static void do_dev_dbg(void)
{
	const char *query = is("enabled", "true") ? "module vfio_pci_core +p" : "module vfio_pci_core -p";
	say_errno(write_file("/proc/dynamic_debug/control", query));
}

static void do_sleep_ms(void)
{
	usleep(number_of("value") * 1000);
	say("result ok");
}

/* The host reads the tables: nothing is to be done here. */
static void do_nothing(void)
{
	say("result ok");
}

const struct op ops[] = {
	{ "access", do_access },
	{ "clear_refs", do_clear_refs },
	{ "dev_dbg", do_dev_dbg },
	{ "device_reset", do_device_reset },
	{ "dma_map", do_dma_map },
	{ "dma_unmap", do_dma_unmap },
	{ "exit", do_exit },
	{ "fork", do_fork },
	{ "get_mempolicy", do_get_mempolicy },
	{ "iommufd_map", do_iommufd_map },
	{ "iommufd_unmap", do_iommufd_unmap },
	{ "kvm.dirty_log", do_kvm_dirty_log },
	{ "kvm.map", do_kvm_map },
	{ "kvm.memslot", do_kvm_memslot },
	{ "kvm.param", do_kvm_param },
	{ "madvise", do_madvise },
	{ "mbind", do_mbind },
	{ "mincore", do_mincore },
	{ "mlock", do_mlock },
	{ "mlockall", do_mlockall },
	{ "mmap", do_mmap },
	{ "module", do_module },
	{ "move_pages", do_move_pages },
	{ "mprotect", do_mprotect },
	{ "mremap", do_mremap },
	{ "mseal", do_mseal },
	{ "msync", do_msync },
	{ "munlock", do_munlock },
	{ "munlockall", do_munlockall },
	{ "munmap", do_munmap },
	{ "note_tables", do_nothing },
	{ "numa_maps", do_numa_maps },
	{ "pagemap", do_pagemap },
	{ "pagemap_scan", do_pagemap_scan },
	{ "pci_memory", do_pci_memory },
	{ "prctl_thp_disable", do_prctl_thp_disable },
	{ "probe", do_probe },
	{ "record", do_record },
	{ "scan", do_scan },
	{ "set_thp_enabled", do_set_thp_enabled },
	{ "set_thp_sizes", do_set_thp_sizes },
	{ "sleep_ms", do_sleep_ms },
	{ "smaps", do_smaps },
	{ "smaps_rollup", do_smaps_rollup },
	{ "touch", do_touch },
	{ "trace", do_trace },
	{ "userfaultfd_register", do_userfaultfd_register },
	{ "vfio", do_vfio },
	{ "vm_create", do_vm_create },
	{ "vmas", do_vmas },
	{ "walk", do_nothing },
	{ "wire", do_wire },
	{ NULL, NULL },
};
