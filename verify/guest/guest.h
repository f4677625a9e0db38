// SPDX-License-Identifier: Apache-2.0
#ifndef GUEST_H
#define GUEST_H

#include <sys/types.h>

#define LISTED_FAULTS 1200
#define MAX_EVENTS 64
#define MAX_RETURNS 64
#define REQUEST_BYTES 1024
#define GUEST_RAM_BYTES 0x10000 /* of a virtual machine, at its address 0 */

struct fault {
	unsigned long long va;
	unsigned int order, ret, flags;
};

struct event {
	char name[16];
	unsigned long count;
};

struct event_return {
	char name[16];
	unsigned int ret;
	unsigned long count;
};

/* What the events since the last drain add up to. */
struct seen {
	struct fault faults[LISTED_FAULTS], pending;
	unsigned long faults_total, lost;
	unsigned long long pgd, root; /* root: of KVM's second stage */
	struct event events[MAX_EVENTS];
	struct event_return returns[MAX_RETURNS];
	int n_events, n_returns;
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
extern struct seen seen;
extern char request[REQUEST_BYTES];

/* The request */
const char *text_of(const char *key); /* "" where it is not said; valid until the next call */
unsigned long long number_of(const char *key);

/* The answer */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_errno(long result); /* "result ok", or what errno is where it is negative */
void clear_answer(void);
void touch_answer(void);
void transmit(void);
void receive(void); /* waits for a request that is whole and new */
void open_wire(void);

/* Events */
void drain(void);
void forget_events(void);
void forget_ranges(void);
void touch_events(void);
unsigned long count_of(const char *event);
void measured(void (*perform)(void)); /* one step, with what it did */
void open_kmsg(void);
void catch_signals(void);

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
void do_vfio(void);
void do_mmap(void);
void do_kvm_map(void);
void do_kvm_memslot(void);
void do_kvm_dirty_log(void);
void do_kvm_param(void);
void do_vm_create(void);
void say_second_stage(void);
void touch_guest_ram(void);
void do_pci_memory(void);
void do_device_reset(void);
void do_dma_map(void);
void do_dma_unmap(void);
void do_iommufd_map(void);
void do_iommufd_unmap(void);
void do_wire(void);

#endif
