// SPDX-License-Identifier: Apache-2.0
/* What a step is measured by: kprobe events, page-table bytes, split counters, kernel messages. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest.h"

#define WINDOW_START 0x100000000000ull
#define WINDOW_END 0x180000000000ull
#define MAX_RANGES 64
#define TRACE_BYTES (64 << 10)

struct seen seen;

static struct range {
	unsigned long long start, end;
} ranges[MAX_RANGES] = { { WINDOW_START, WINDOW_END } };
static int n_ranges = 1;
static char trace_text[TRACE_BYTES];
static size_t trace_held;
static int trace_pipe = -1, kmsg = -1;

static int in_ranges(unsigned long long va)
{
	for (int i = 0; i < n_ranges; i++)
		if (ranges[i].start <= va && va < ranges[i].end)
			return 1;
	return 0;
}

void watch_range(unsigned long long start, unsigned long long length)
{
	if (n_ranges < MAX_RANGES && !(in_ranges(start) && in_ranges(start + length - 1)))
		ranges[n_ranges++] = (struct range){ start, start + length };
}

static unsigned long long field(const char *line, const char *key, unsigned long long missing)
{
	const char *at = strstr(line, key);
	return at ? strtoull(at + strlen(key), NULL, 0) : missing;
}

static void count_event(const char *name, unsigned int ret, int is_return)
{
	int i;
	if (is_return) {
		for (i = 0; i < seen.n_returns; i++)
			if (seen.returns[i].ret == ret && !strcmp(seen.returns[i].name, name))
				break;
		if (i == MAX_RETURNS)
			return;
		if (i == seen.n_returns) {
			snprintf(seen.returns[i].name, sizeof seen.returns[i].name, "%s", name);
			seen.returns[i].ret = ret;
			seen.returns[i].count = 0;
			seen.n_returns++;
		}
		seen.returns[i].count++;
		return;
	}
	for (i = 0; i < seen.n_events; i++)
		if (!strcmp(seen.events[i].name, name))
			break;
	if (i == MAX_EVENTS)
		return;
	if (i == seen.n_events) {
		snprintf(seen.events[i].name, sizeof seen.events[i].name, "%s", name);
		seen.events[i].count = 0;
		seen.n_events++;
	}
	seen.events[i].count++;
}

/* One line of trace_pipe: "  NAME: (where) key=value ...". NAME "fault" and "fault_r" are the driver's handler. */
static void take_event(char *line)
{
	char *end = strstr(line, ": ("), *name = end;
	char *lost = strstr(line, "LOST ");
	if (lost)
		seen.lost += strtoul(lost + 5, NULL, 10);
	if (!end)
		return;
	while (name > line && name[-1] != ' ')
		name--;
	*end = 0;
	char *fields = end + 1;
	unsigned long long va = field(fields, " addr=", 0);
	if (!strcmp(name, "pgd")) {
		seen.pgd = field(fields, " ret=", 0);
	} else if (!strcmp(name, "root")) {
		seen.root = field(fields, " root=", 0);
	} else if (!strcmp(name, "tdp")) {
		if (va >= GUEST_RAM_BYTES)
			count_event(name, 0, 0);
	} else if (!strcmp(name, "fault")) {
		seen.pending.va = va;
		seen.pending.order = field(fields, " order=", 0);
		seen.pending.flags = field(fields, " flags=", 0);
	} else if (!strcmp(name, "fault_r")) {
		seen.pending.ret = field(fields, " ret=", 0);
		if (seen.faults_total < LISTED_FAULTS)
			seen.faults[seen.faults_total] = seen.pending;
		seen.faults_total++;
	} else if (!strstr(fields, " addr=") || in_ranges(va)) {
		count_event(name, field(fields, " ret=", 0), strstr(fields, " ret=") != NULL);
	}
}

void drain(void)
{
	for (;;) {
		ssize_t got = read(trace_pipe, trace_text + trace_held, TRACE_BYTES - 1 - trace_held);
		if (got <= 0)
			return;
		trace_held += got;
		trace_text[trace_held] = 0;
		char *line = trace_text;
		for (char *end; (end = strchr(line, '\n')); line = end + 1) {
			*end = 0;
			take_event(line);
		}
		trace_held -= line - trace_text;
		memmove(trace_text, line, trace_held);
	}
}

void forget_events(void)
{
	drain();
	seen.faults_total = seen.lost = 0;
	seen.n_events = seen.n_returns = 0;
}

unsigned long count_of(const char *name)
{
	for (int i = 0; i < seen.n_events; i++)
		if (!strcmp(seen.events[i].name, name))
			return seen.events[i].count;
	return 0;
}

/* What is not an event: page-table bytes, split counters, kernel messages. */

static long proc_number(const char *path, const char *key)
{
	static char text[32768];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;
	ssize_t got;
	if (fd < 0)
		return 0;
	while ((got = read(fd, text + length, sizeof text - 1 - length)) > 0)
		length += got;
	close(fd);
	text[length] = 0;
	char *at = strstr(text, key);
	return at ? strtol(at + strlen(key), NULL, 10) : 0;
}

struct counters {
	long table_kb, split_pmd, split_pud;
};

static struct counters read_counters(void)
{
	return (struct counters){
		.table_kb = proc_number("/proc/self/status", "\nVmPTE:"),
		.split_pmd = proc_number("/proc/vmstat", "\nthp_split_pmd "),
		.split_pud = proc_number("/proc/vmstat", "\nthp_split_pud "),
	};
}

static void say_messages(int quietly)
{
	char text[2048];
	ssize_t got;
	for (;;) {
		got = read(kmsg, text, sizeof text - 1);
		if (got < 0 && errno == EPIPE)
			continue; /* overwritten before it was read */
		if (got <= 0)
			return;
		text[got] = 0;
		char *message = strchr(text, ';'), *end;
		if (quietly || !message)
			continue;
		if ((end = strchr(message, '\n')))
			*end = 0;
		say("message %.900s", message + 1);
	}
}

/* Measures one step around what performs it. */
void measured(void (*perform)(void))
{
	forget_events();
	say_messages(1);
	struct counters before = read_counters();
	perform();
	struct counters after = read_counters();
	drain();
	for (unsigned long i = 0; i < seen.faults_total && i < LISTED_FAULTS; i++)
		say("fault %u 0x%x 0x%llx 0x%x", seen.faults[i].order, seen.faults[i].ret, seen.faults[i].va,
		    seen.faults[i].flags);
	say("faults %lu", seen.faults_total);
	for (int i = 0; i < seen.n_events; i++)
		say("call %s %lu", seen.events[i].name, seen.events[i].count);
	for (int i = 0; i < seen.n_returns; i++)
		say("return %s 0x%x %lu", seen.returns[i].name, seen.returns[i].ret, seen.returns[i].count);
	if (seen.lost)
		say("lost %lu", seen.lost);
	say("tables %ld", (after.table_kb - before.table_kb) * 1024);
	say("split %ld %ld", after.split_pmd - before.split_pmd, after.split_pud - before.split_pud);
	say_messages(0);
	say_second_stage();
}

void forget_ranges(void)
{
	n_ranges = 1;
}

void touch_events(void)
{
	for (size_t i = 0; i < TRACE_BYTES; i += 4096)
		((volatile char *)trace_text)[i] = trace_text[i];
	for (size_t i = 0; i < sizeof seen; i += 4096)
		((volatile char *)&seen)[i] = ((volatile char *)&seen)[i];
	read_counters();
}

void open_kmsg(void)
{
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	lseek(kmsg, 0, SEEK_END);
}

void do_probe(void)
{
	char definition[512], path[128];
	snprintf(definition, sizeof definition, "%s", text_of("definition"));
	for (char *c = definition; (c = strchr(c, ','));)
		*c = ' ';
	if (write_file("/sys/kernel/tracing/kprobe_events", definition)) {
		say_errno(-1);
		return;
	}
	snprintf(path, sizeof path, "/sys/kernel/tracing/events/kprobes/%.32s/enable", text_of("event"));
	say_errno(write_file(path, "1"));
}

/* Only what init's children do is traced, without who and when. */
void do_trace(void)
{
	static const char *const settings[][2] = {
		{ "options/context-info", "0" },
		{ "options/event-fork", "1" },
		{ "buffer_size_kb", "65536" },
		{ "set_event_pid", "1" },
		{ "tracing_on", "1" },
	};
	char path[128];
	for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
		snprintf(path, sizeof path, "/sys/kernel/tracing/%s", settings[i][0]);
		if (write_file(path, settings[i][1])) {
			say("where %s", path);
			say_errno(-1);
			return;
		}
	}
	trace_pipe = open("/sys/kernel/tracing/trace_pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	say_errno(trace_pipe);
}
