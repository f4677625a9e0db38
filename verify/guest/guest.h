// SPDX-License-Identifier: Apache-2.0
#ifndef GUEST_H
#define GUEST_H

#include <sys/types.h>

#define LISTED_FAULTS 1200

struct range {
	unsigned long long start, end;
};

struct child {
	pid_t pid;
	int to, from, stopped;
};

struct op {
	const char *name;
	void (*perform)(void);
};

extern const struct op ops[];
extern struct child child;

/* The request */
const char *text_of(const char *key); /* "" where it is not said; valid until the next call */
unsigned long long number_of(const char *key);

/* The answer */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_errno(long result); /* "result ok", or what errno is where it is negative */

/* Mappings outside the window whose faults count, too */
void watch_range(unsigned long long start, unsigned long long length);

int write_file(const char *path, const char *text);
void be_traced(void);

void do_touch(void);
void do_scan(void);
void do_fork(void);
void do_exit(void);
void do_record(void);
void do_module(void);
void do_probe(void);
void do_trace(void);
void do_write(void);
void do_read(void);
void do_vfio(void);
void do_mmap(void);
void do_kvm_map(void);
void do_kvm_memslot(void);
void do_pci_memory(void);
void do_device_reset(void);
void do_dma_map(void);
void do_dma_unmap(void);

#endif
